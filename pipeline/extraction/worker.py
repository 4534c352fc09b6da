"""One portion of videos -> rows of a shard: decode, view, segment, encode, check."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.decoding.children import DecodeChildren
from pipeline.errors import VideoError
from pipeline.extraction.backends import Backends, load_backends
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.freed_memory import keep_freed_memory
from pipeline.extraction.gates import one_torch_thread, open_gates
from pipeline.extraction.portions import Portion, PortionResult
from pipeline.extraction.rows import failure_of
from pipeline.extraction.segmenting import Segmenting
from pipeline.extraction.stages import StageClock
from pipeline.extraction.storing import FeatureRows, FrameRows
from pipeline.extraction.viewed_clips import Viewing, viewed_clips
from pipeline.manifests import Manifest
from pipeline.prompts import PromptTables


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSettings:
    """All that a worker needs to know; plain data, so that it can travel to another process."""

    config: ExtractConfig
    manifest: Manifest
    prompts: PromptTables | None = None
    """The user's prompts and the dataset's placeholders."""


@contextmanager
def open_worker(
    settings: WorkerSettings, worker_number: int
) -> Iterator[Callable[[Portion], PortionResult]]:
    """Build the models and start the decoding children.

    Args:
        settings: of the extraction.
        worker_number: decides the GPU where the settings do not.

    Yields:
        Callable[[Portion], PortionResult]: What does the work; several threads may call it at once.
    """
    config = settings.config
    if config.has_workers:
        keep_freed_memory()
    with one_torch_thread():
        backends = load_backends(config, worker_number)
        with decode_children(config) as children:
            yield _Worker(settings, backends, children)


def decode_children(config: ExtractConfig) -> DecodeChildren:
    """Decoding processes as the settings ask for them; the caller enters them."""
    number = config.decode_children
    return DecodeChildren(
        config.processors_per_worker if number is None else number,
        decoder=config.decoder,
        frame_rule=config.frame_rule,
        num_frames=config.frames,
        timeout_seconds=config.decode_timeout_seconds,
        min_decoded_ratio=config.min_decoded_ratio,
        max_pixels=config.max_pixels,
        phases=config.phases,
    )


class _Worker:
    """Turns portions into rows; a video that cannot be used becomes a `Failure`, not an end."""

    def __init__(
        self, settings: WorkerSettings, backends: Backends, children: DecodeChildren
    ) -> None:
        config, encoder = settings.config, backends.encoder
        encoder_gate, segmenter_gate = open_gates(
            backends.made_by.device, config.processors_per_worker
        )
        self._videos_root = config.videos
        self._children = children
        self._made_by = backends.made_by
        self._segmenting = Segmenting(
            backends.segmenter,
            segmenter_gate,
            manifest=settings.manifest,
            prompts=settings.prompts,
            prompt_mode=config.prompt_mode,
        )
        self._viewing = Viewing(
            image_size=encoder.image_size if encoder else None,
            geometry=config.geometry,
            stored_views=config.stored_views,
            keeps_frames=lambda video: encoder is None or self._segmenting.wants(video),
        )
        self._rows: FeatureRows | FrameRows = (
            FeatureRows(encoder, encoder_gate, config.batch_frames)
            if encoder
            else FrameRows(config.frame_side)
        )

    def __call__(self, portion: Portion) -> PortionResult:
        """Extract the portion's videos."""
        clock = StageClock()
        with clock("decode"):
            decoded = list(
                viewed_clips(portion.videos, self._videos_root, self._children, self._viewing)
            )
        failures = [failure_of(video, e) for video, e in decoded if isinstance(e, VideoError)]
        clips = [clip for _, clip in decoded if not isinstance(clip, VideoError)]
        with clock("segment"):
            segmented = self._segmenting.masks(clips)
        with clock("encode"):
            outcomes = self._rows.make(segmented)
        failures += [failure_of(video, e) for video, e in outcomes if isinstance(e, VideoError)]
        return PortionResult(
            shard_number=portion.shard_number,
            rows=tuple(row for _, row in outcomes if not isinstance(row, VideoError)),
            failures=tuple(failures),
            seconds=clock.seconds,
            made_by=self._made_by,
        )
