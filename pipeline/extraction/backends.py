"""The models of one extracting process, and what they say of themselves."""

from dataclasses import dataclass

from pipeline.decoding import get_decoder
from pipeline.devices import resolve_device
from pipeline.encoders import FrameEncoder, get_encoder
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.made_by import MadeBy
from pipeline.noted_files import noting_files
from pipeline.segmenters import Segmenter, get_segmenter


@dataclass(frozen=True, kw_only=True, slots=True)
class Backends:
    """The models of one process."""

    encoder: FrameEncoder | None
    """None where frames are stored."""
    segmenter: Segmenter | None
    made_by: MadeBy


def load_backends(config: ExtractConfig, worker_number: int = 0) -> Backends:
    """Build the models that the settings name, on this worker's device."""
    device = resolve_device(config.device, worker_number)
    with noting_files() as files:
        encoder = _encoder(config, device) if config.store == "features" else None
        segmenter = get_segmenter(
            config.segmenter, device=device, masks=config.masks, **config.segmenter_options
        )
        fingerprints = {
            "decoder": {"name": config.decoder, "version": get_decoder(config.decoder).version()},
            "encoder": encoder.fingerprint() if encoder else None,
            "segmenter": segmenter.fingerprint() if segmenter else None,
        }
    return Backends(
        encoder=encoder,
        segmenter=segmenter,
        made_by=MadeBy(fingerprints=fingerprints, device=device, files=tuple(files)),
    )


def _encoder(config: ExtractConfig, device: str) -> FrameEncoder:
    return get_encoder(config.encoder, device=device, grid=config.grid, weights=config.weights)
