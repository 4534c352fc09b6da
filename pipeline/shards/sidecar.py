"""Sidecar: the record that commits one shard until index.json lists it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.shards.records import Failure, FeatureShape, ShardRecord, VideoRow, sidecar_name
from pipeline.shards.sealed_json import Table, load_sealed, malformed, read_table, seal


@dataclass(frozen=True, kw_only=True, slots=True)
class Sidecar:
    """One chunk of an extraction: its shard, if any video was usable, and what became of each."""

    number: int
    fingerprint: dict[str, Any]
    shape: FeatureShape | None
    """None without a shard."""
    shards: tuple[ShardRecord, ...]
    """One, or none where every video failed."""
    videos: tuple[VideoRow, ...]
    failures: tuple[Failure, ...]

    @classmethod
    def load(cls, folder: Path, number: int) -> "Sidecar":
        """Read a sidecar.

        Args:
            folder: of the dataset.
            number: of the shard.

        Returns:
            The sidecar.

        Raises:
            ShardError: absent, changed, or of another format version.
        """
        path = folder / sidecar_name(number)
        document = load_sealed(path)
        try:
            shape, fingerprint = document["shape"], dict(document["fingerprint"])
            sidecar = cls(
                number=number,
                fingerprint=fingerprint,
                shape=None if shape is None else FeatureShape(**shape),
                shards=tuple(read_table(document, "shards", ShardRecord, path)),
                videos=tuple(read_table(document, "videos", VideoRow, path)),
                failures=tuple(read_table(document, "failures", Failure, path)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise malformed(path, str(error)[:80]) from None
        if {shard.number for shard in sidecar.shards} != {v.shard for v in sidecar.videos}:
            raise malformed(path, "videos")
        if {shard.number for shard in sidecar.shards} - {number}:
            raise malformed(path, "shards")
        return sidecar

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return seal(
            {
                "fingerprint": self.fingerprint,
                "shape": None if self.shape is None else self.shape._asdict(),
                "shards": Table(ShardRecord, self.shards),
                "videos": Table(VideoRow, self.videos),
                "failures": Table(Failure, self.failures),
            }
        )


def sidecar_numbers(folder: Path) -> list[int]:
    """Numbers of the shards that have a sidecar in a folder, sorted; none where it is absent."""
    found = (re.fullmatch(r"shard-(\d{5,})\.json", one.name) for one in folder.glob("shard-*"))
    return sorted(int(name[1]) for name in found if name)
