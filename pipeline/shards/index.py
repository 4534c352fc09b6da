"""ShardIndex: the JSON that commits a dataset, and all that `i2st info` needs to read.

Imports neither numpy nor h5py nor torch.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, I2STError, ShardError
from pipeline.shards import FORMAT_VERSION
from pipeline.shards.index_checks import require_consistent, require_readable
from pipeline.shards.records import (
    Failure,
    FeatureShape,
    ShardLayout,
    ShardRecord,
    VideoRow,
)
from pipeline.shards.sealed_json import Table, load_sealed, malformed, read_table, seal
from pipeline.shards.sidecar import Sidecar, sidecar_numbers

INDEX_NAME = "index.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardIndex:
    """What a folder of shards holds."""

    dataset: dict[str, Any]
    """``name`` and ``classes`` (split -> class names in manifest order)."""
    fingerprint: dict[str, Any]
    """What decided the features: manifest, decoder, frame rule, encoder, segmenter, prompts."""
    digest: str
    """sha256 of the content; see ``dataset_digest``."""
    shape: FeatureShape
    shards: tuple[ShardRecord, ...]
    videos: tuple[VideoRow, ...]
    """Sorted by video id; the order of rows in ``ShardReader``."""
    failures: tuple[Failure, ...]
    format_version: int = FORMAT_VERSION

    @classmethod
    def load(cls, folder: Path) -> "ShardIndex":
        """Read ``folder/index.json``.

        Args:
            folder: of the dataset.

        Returns:
            The index.

        Raises:
            ConfigError: the folder holds no shards.
            ShardError: unfinished, absent beside shards, changed since it was written, or of
                another format version.
        """
        path = Path(folder) / INDEX_NAME
        if not path.parent.is_dir() or not path.exists():
            raise _absent(path)
        with _without_garbage_collection():
            document = load_sealed(path)
            try:
                return _from_document(document, path)
            except (KeyError, TypeError, AttributeError) as error:
                raise malformed(path, str(error)[:80]) from None

    def to_bytes(self) -> bytes:
        """Return the content of index.json; the same index gives the same bytes."""
        return seal(
            {
                "dataset": self.dataset,
                "digest": self.digest,
                "fingerprint": self.fingerprint,
                "shape": self.shape._asdict(),
                "shards": Table(ShardRecord, self.shards),
                "videos": Table(VideoRow, self.videos),
                "failures": Table(Failure, self.failures),
            }
        )

    @property
    def dataset_name(self) -> str:
        """Name of the manifest the videos came from."""
        return str(self.dataset["name"])

    @property
    def classes(self) -> dict[str, list[str]]:
        """Split -> class names in manifest order."""
        return dict(self.dataset["classes"])

    @property
    def classes_present(self) -> dict[str, list[str]]:
        """Split -> names of the classes that have a video here, in manifest order."""
        there = {video.class_name for video in self.videos}
        return {split: [n for n in names if n in there] for split, names in self.classes.items()}

    @property
    def class_names(self) -> list[str]:
        """Class names over all splits, in manifest order; a class index points in here."""
        return [name for names in self.dataset["classes"].values() for name in names]

    @property
    def num_frames(self) -> int:
        """F, frames stored per video."""
        return self.shape.num_frames

    @property
    def num_tokens(self) -> int:
        """L, grid cells per frame."""
        return self.shape.num_tokens

    @property
    def token_dim(self) -> int:
        """C, features per token."""
        return self.shape.token_dim

    @property
    def embedding_dim(self) -> int:
        """E, features of the pooled embedding."""
        return self.shape.embedding_dim

    @property
    def stores(self) -> str:
        """What the rows hold: features or frames."""
        return "frames" if "store" in self.fingerprint else "features"

    @property
    def view_names(self) -> tuple[str, ...]:
        """Stored views of train videos beside the base view."""
        return tuple(self.fingerprint.get("views", ()))

    @property
    def num_slots(self) -> int:
        """S, mask slots per frame; 0 without a segmenter."""
        return max((shard.num_slots for shard in self.shards), default=0)

    @property
    def has_masks(self) -> bool:
        """Whether train videos have masks."""
        return self.num_slots > 0

    def layouts(self) -> dict[int, ShardLayout]:
        """Shard number -> what decides its datasets."""
        train: dict[int, list[int]] = {}
        for video in self.videos if self.view_names else ():
            if video.split == "train":
                train.setdefault(video.shard, []).append(video.row)
        return {
            shard.number: ShardLayout(
                self.stores,
                self.shape,
                shard.num_videos,
                shard.num_slots,
                len(self.view_names),
                tuple(sorted(train.get(shard.number, ()))),
            )
            for shard in self.shards
        }


def _absent(path: Path) -> I2STError:
    """The error for a folder without index.json: unfinished, bereft of it, or without shards."""
    records = [Sidecar.load(path.parent, number) for number in sidecar_numbers(path.parent)]
    if records:
        num_videos = sum(len(record.videos) for record in records)
        num_failed = sum(len(record.failures) for record in records)
        return ShardError(
            f"{path.parent} is unfinished: {num_videos} videos are extracted and {num_failed} "
            "failed; a finished extraction was needed; run the same `i2st extract` again, which "
            "goes on"
        )
    error = ShardError if any(path.parent.glob("shard-*")) else ConfigError
    return error(
        f"{path} is absent; a finished extraction was needed; "
        "run `i2st extract` to the end, or name its output folder"
    )


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Halve the load time of a large index: its many small rows set off collections in vain."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _from_document(document: dict[str, Any], path: Path) -> ShardIndex:
    require_readable(document, path)
    index = ShardIndex(
        dataset=document["dataset"],
        fingerprint=document["fingerprint"],
        digest=str(document["digest"]),
        shape=FeatureShape(**document["shape"]),
        shards=tuple(read_table(document, "shards", ShardRecord, path)),
        videos=tuple(read_table(document, "videos", VideoRow, path)),
        failures=tuple(read_table(document, "failures", Failure, path)),
    )
    require_consistent(index.classes, index.shards, index.videos, path)
    return index
