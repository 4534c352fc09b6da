"""The models of one extracting process, and the fingerprint of what decides its features."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.decoding import get_decoder
from pipeline.devices import resolve_device
from pipeline.encoders import FrameEncoder, get_encoder
from pipeline.extraction.plan import ExtractConfig
from pipeline.manifests import Manifest, Video
from pipeline.prompts import PromptTables, prompts_for, prompts_sha256
from pipeline.segmenters import Segmenter, get_segmenter
from pipeline.shards import FORMAT_VERSION


@dataclass(frozen=True, kw_only=True, slots=True)
class Backends:
    """The models of one process."""

    encoder: FrameEncoder
    segmenter: Segmenter | None


def load_backends(config: ExtractConfig, worker_number: int = 0) -> Backends:
    """Build the models that the settings name, on this worker's device."""
    device = resolve_device(config.device, worker_number)
    return Backends(
        encoder=get_encoder(
            config.encoder, device=device, grid=config.grid, weights=config.weights
        ),
        segmenter=get_segmenter(config.segmenter, device=device, masks=config.masks),
    )


def fingerprint(
    config: ExtractConfig,
    manifest: Manifest,
    backends: Backends,
    user_prompts: PromptTables | None = None,
) -> dict[str, Any]:
    """JSON values that decide the shards' content; videos done under others count as not done.

    Which videos there are is not among them, so that a folder can grow.
    """
    segmenter = backends.segmenter
    return {
        "format_version": FORMAT_VERSION,
        "manifest": {"name": manifest.name, "sha256": manifest.sha256},
        "decoder": {"name": config.decoder, "version": get_decoder(config.decoder).version()},
        "frames": {"count": config.frames, "rule": config.frame_rule},
        "view": {"geometry": config.geometry},
        "encoder": backends.encoder.fingerprint(),
        "segmenter": segmenter.fingerprint() if segmenter else None,
        "prompts": _prompts(config, manifest, user_prompts) if segmenter else None,
    }


def _prompts(
    config: ExtractConfig, manifest: Manifest, tables: PromptTables | None
) -> dict[str, str]:
    """Hashes of the prompts of every train class, and of what single videos have beside them."""
    of_classes = (
        prompts_for(
            manifest,
            Video(video_id=name, path="", class_name=name, split="train"),
            user_table=tables,
            mode=config.prompt_mode,
        )
        for name in manifest.classes.get("train", ())
    )
    of_videos = json.dumps(asdict(tables or PromptTables()), sort_keys=True)
    return {
        "mode": config.prompt_mode,
        "classes_sha256": prompts_sha256(of_classes),
        "tables_sha256": hashlib.sha256(of_videos.encode()).hexdigest(),
    }
