"""The datasets of one shard, and the checksum of one row.

Shape letters: N videos of the shard, F frames, L grid cells, C token features, E embedding
features, S mask slots.
"""

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from pipeline.segmenters import MASK_BYTES
from pipeline.shards.records import FeatureShape

MAX_ID_BYTES = 255

Spec = tuple[tuple[int, ...], np.dtype]

CONTENT = (
    "tokens",
    "frame_embedding",
    "frame_indices",
    "num_frames_decoded",
    "num_frames_expected",
    "num_damaged_packets",
)
"""Datasets whose rows a row's checksum covers; identity is covered by the dataset digest."""
MASKS = ("mask_bits", "mask_found", "mask_score")
"""Covered too, for train rows of a shard that has them."""


def dataset_specs(shape: FeatureShape, *, num_videos: int, num_slots: int) -> dict[str, Spec]:
    """Describe a shard's datasets.

    Args:
        shape: F, L, C and E.
        num_videos: N.
        num_slots: S; 0 leaves the mask datasets out.

    Returns:
        Dataset name -> (shape, dtype), in the order they are written.
    """
    n, frames = num_videos, shape.num_frames
    specs = {
        "tokens": ((n, frames, shape.num_tokens, shape.token_dim), "<f2"),
        "frame_embedding": ((n, frames, shape.embedding_dim), "<f2"),
        "frame_indices": ((n, frames), "<i4"),
        "num_frames_decoded": ((n,), "<i4"),
        "num_frames_expected": ((n,), "<i4"),
        "num_damaged_packets": ((n,), "<i4"),
        "video_id": ((n,), f"S{MAX_ID_BYTES}"),
        "class_index": ((n,), "<i4"),
        "split": ((n,), "S5"),
    }
    if num_slots:
        specs["mask_bits"] = ((n, frames, num_slots, MASK_BYTES), "u1")
        specs["mask_found"] = ((n, frames, num_slots), "?")
        specs["mask_score"] = ((n, frames, num_slots), "<f2")
    return {name: (sizes, np.dtype(code)) for name, (sizes, code) in specs.items()}


def row_sha256(arrays: Mapping[str, NDArray], row: int, *, with_masks: bool) -> str:
    """Compute the checksum of one video's content.

    Independent of the shard: names, dtypes, shapes and bytes of the row alone, so a video has the
    same checksum wherever it is stored.

    Args:
        arrays: the shard's datasets.
        row: index along their first axis.
        with_masks: the row has masks of its own, that is a train row of a shard with masks.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in (*CONTENT, *(MASKS if with_masks else ())):
        value = np.ascontiguousarray(arrays[name][row])
        digest.update(f"{name} {value.dtype.str} {arrays[name].shape[1:]}\n".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()
