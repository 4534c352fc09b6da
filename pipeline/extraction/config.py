"""Settings of an extraction: every value is plain and picklable."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.devices import check_device_name
from pipeline.errors import ConfigError
from pipeline.scheduling import SlurmSettings, Where
from pipeline.shards.jpegs import FRAME_SIDE
from pipeline.views import (
    DEFAULT_GEOMETRY,
    GEOMETRIES,
    View,
    frame_phases,
    may_mirror,
    stored_views,
)

STORES = ("features", "frames")
_FEWEST_HANDS = 3
"""One that decodes, one whose turn it is at the models, one that is next."""
_AS_MANY_AS_THREADS = 1024
"""For a scheduler's workers, which have as many hands as threads and no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExtractConfig:
    """Settings of `i2st extract`."""

    dataset: str
    """Name that the shard index carries."""
    videos: Path
    """Folder that the videos' paths are relative to."""
    out: Path
    """Folder that receives the shards."""
    store: str = "features"
    """What shards hold: the encoder's features, or frames for training an encoder."""
    frame_side: int = FRAME_SIDE
    """Longest that the short side of a stored frame is, in pixels."""
    encoder: str = "open_clip:ViT-B-16-quickgelu/openai"
    """Our choice: the field's CLIP-based methods all use CLIP ViT-B/16."""
    weights: Path | None = None
    """Local weight file of the encoder."""
    grid: int | None = None
    """Side g of the token grid; None is the encoder's own."""
    geometry: str = DEFAULT_GEOMETRY
    """How a frame becomes the encoder's square view; see pipeline.views."""
    views: tuple[str, ...] = ()
    """Words for the views that train videos have beside their base view; see pipeline.views."""
    segmenter: str = "sam_clip"
    """NAME or NAME:MODEL, see pipeline.segmenters."""
    segmenter_options: Mapping[str, Any] = field(default_factory=dict)
    """Settings of that segmenter, by its own names."""
    prompt_mode: str = "nouns"
    """What the segmenter is asked for, see pipeline.prompts."""
    masks: Path | None = None
    """Folder of mask files, for the segmenter `precomputed`."""
    frames: int = 8
    """Stored frames per video. The paper and its peers sample 8."""
    frame_rule: str = "segment_centres"
    decoder: str = "pyav"
    """Exact on every codec measured, which decord is not."""
    decode_children: int | None = None
    """Decoding processes per worker; 0 decodes in the worker, where no hang can be killed; None is
    one per processor that the worker has."""
    decode_timeout_seconds: float = 60.0
    min_decoded_ratio: float = 0.95
    """Below it a file counts as short. Not in the fingerprint: the counts are stored per video."""
    max_pixels: int = 8192 * 8192
    """Largest height x width of a frame; a larger claim is refused before it is decoded."""
    shard_videos: int = 64
    """Videos per shard."""
    batch_frames: int = 64
    """Frames per encoder call; the last call is padded to it. Also what a hand works on at once."""
    workers: int = 0
    """Local worker processes; 0 works in this process."""
    hands: int | None = None
    """Portions that a worker has in hand at once; None keeps all its processors busy."""
    scheduler: str | None = None
    """Address of a dask scheduler whose workers do the work."""
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    slurm: SlurmSettings | None = None
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    limit: int | None = None
    """At most this many videos, taken in turn from every class."""
    retry_failed: bool = False
    check_decoder: int = 0
    """Train videos whose frames are compared with the other decoder before anything is written."""

    def __post_init__(self) -> None:
        for name in ("frames", "shard_videos", "batch_frames", "max_pixels", "frame_side"):
            _at_least(1, name, getattr(self, name))
        for name in ("workers", "check_decoder"):
            _at_least(0, name, getattr(self, name))
        for name, minimum in (("limit", 1), ("hands", 1), ("decode_children", 0)):
            if getattr(self, name) is not None:
                _at_least(minimum, name, getattr(self, name))
        check_device_name(self.device)
        _one_of(GEOMETRIES, "geometry", self.geometry)
        _one_of(STORES, "store", self.store)
        if self.store == "frames" and self.views:
            raise ConfigError(
                f"views {', '.join(self.views)} beside stored frames, of which training makes its "
                "own; needed: one of the two; drop --views, or pass --store features"
            )
        if not 0.0 <= self.min_decoded_ratio <= 1.0:
            raise ConfigError(
                f"min_decoded_ratio={self.min_decoded_ratio} is no fraction of a video; "
                "it must lie in 0..1; pass e.g. 0.95"
            )
        if not self.decode_timeout_seconds > 0:
            raise ConfigError(
                f"decode_timeout_seconds={self.decode_timeout_seconds} leaves no time to decode; "
                "it must be above 0; pass e.g. 60"
            )
        # What they come to is checked before anything is loaded.
        _ = self.where
        if any(view.mirrored for view in self.stored_views) and not may_mirror(self.dataset):
            raise ConfigError(
                f"views {', '.join(self.views)} mirror the videos of {self.dataset}, whose classes "
                "tell left from right; needed: views that keep the sides; leave flip out of --views"
            )

    @property
    def has_workers(self) -> bool:
        """Whether the work is done in processes of its own."""
        return self.workers > 0 or self.is_remote

    @property
    def is_remote(self) -> bool:
        """Whether the work is done by workers that other machines may run."""
        return self.scheduler is not None or self.slurm is not None

    @property
    def where(self) -> Where:
        """Where the work is done."""
        return Where(
            workers=self.workers,
            hands=self.hands or self._default_hands,
            scheduler=self.scheduler,
            tls_ca=self.tls_ca,
            tls_cert=self.tls_cert,
            tls_key=self.tls_key,
            slurm=self.slurm,
        )

    @property
    def _default_hands(self) -> int:
        if self.scheduler is not None:
            return _AS_MANY_AS_THREADS
        processors = self.slurm.cores if self.slurm else self.processors_per_worker
        return max(_FEWEST_HANDS, processors + 1)

    @property
    def processors_per_worker(self) -> int:
        """Processors of this machine that one of its workers may use."""
        from dask.system import cpu_count

        return max(1, cpu_count() // max(1, self.workers))

    @property
    def stored_views(self) -> tuple[View, ...]:
        """Views of train videos beside their base view."""
        return stored_views(self.views, self.geometry)

    @property
    def phases(self) -> tuple[float, ...]:
        """Phases in which frames are decoded; see pipeline.clips."""
        return frame_phases(self.stored_views)

    @property
    def portion_videos(self) -> int:
        """Videos that a hand works on at once."""
        return max(1, self.batch_frames // self.frames)


def _one_of(known: tuple[str, ...], name: str, value: str) -> None:
    if value not in known:
        raise ConfigError(f"unknown {name} {value!r}; known: {', '.join(known)}; pass one of these")


def _at_least(minimum: int, name: str, value: int) -> None:
    if value < minimum:
        raise ConfigError(f"{name}={value} is too small; at least {minimum} was needed; raise it")
