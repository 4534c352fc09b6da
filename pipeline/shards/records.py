"""The rows of the tables in index.json and in sidecars, and the digest over them.

Nothing here imports numpy, h5py or torch: `i2st info` reads these tables and little else.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import NamedTuple


class VideoRow(NamedTuple):
    """One finished video: what it is, where its features lie and their checksum."""

    video_id: str
    class_name: str
    split: str
    group: str
    """Empty where unknown; the video is then its own group."""
    shard: int
    """Number of the shard; its file is ``shard_name(shard)``."""
    row: int
    """Index along the first axis of the shard's datasets."""
    num_frames_decoded: int
    num_frames_expected: int
    num_damaged_packets: int
    sha256: str
    """Of the row's content; see ``pipeline.shards.layout.row_checksums``."""
    features_sha256: str = ""
    """Of its features or frames alone, which masks and stored views have no part in: equal videos
    have equal ones. Empty in shards from before it was kept."""


class Failure(NamedTuple):
    """One video that was tried and could not be used."""

    video_id: str
    split: str
    class_name: str
    reason: str
    """Short slug: missing, undecodable, short, timeout, ..."""
    message: str


class ShardRecord(NamedTuple):
    """One shard file."""

    number: int
    num_videos: int
    num_slots: int
    """Mask slots per frame; 0 where the shard has no mask datasets."""
    size_bytes: int
    sha256: str
    """Of the whole file."""


class FeatureShape(NamedTuple):
    """The axes all shards of a dataset share."""

    num_frames: int
    """F, frames stored per video."""
    num_tokens: int
    """L, grid cells per frame."""
    token_dim: int
    """C, features per token."""
    embedding_dim: int
    """E, features of the encoder's pooled embedding."""


class ShardLayout(NamedTuple):
    """What decides the datasets of one shard."""

    stores: str
    """features or frames."""
    shape: FeatureShape
    num_videos: int
    """N."""
    num_slots: int
    """S, mask slots per frame; 0 without masks."""
    num_views: int = 0
    """V, stored views of a train video beside its base view."""
    viewed_rows: tuple[int, ...] = ()
    """Rows that have them: those of the train videos; () where V is 0."""


def shard_name(number: int) -> str:
    """File name of a shard, e.g. ``shard-00000.h5``."""
    return f"shard-{number:05d}.h5"


def sidecar_name(number: int) -> str:
    """File name of the record that commits a shard until index.json lists it."""
    return f"shard-{number:05d}.json"


def dataset_digest(rows: Iterable[VideoRow]) -> str:
    """Return the sha256 of a dataset's content.

    Only identity and content count, sorted by video id; where a row lies does not, so the digest
    is the same for every shard size, worker count, order and interruption.
    """
    digest = hashlib.sha256()
    for row in sorted(rows):
        line = [row.video_id, row.class_name, row.split, row.group, row.sha256]
        digest.update(json.dumps(line).encode() + b"\n")
    return digest.hexdigest()
