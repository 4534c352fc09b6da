"""The datasets of one shard, and the checksums of one row.

Shape letters: N videos of the shard, F frames, L grid cells, C token features, E embedding
features, S mask slots; M train videos of the shard, V stored views of each.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.segmenters import MASK_BYTES
from pipeline.shards.records import ShardLayout

MAX_ID_BYTES = 255
FREE = -1
"""Length of an axis that the file alone tells."""

Spec = tuple[tuple[int, ...], np.dtype]

FEATURES = ("tokens", "frame_embedding")
COUNTS = ("num_frames_decoded", "num_frames_expected", "num_damaged_packets")
MASKS = ("mask_bits", "mask_found", "mask_score")
VIEW_OF = {
    "tokens": "view_tokens",
    "frame_embedding": "view_embedding",
    "frame_indices": "view_frame_indices",
    **{name: f"view_{name}" for name in MASKS},
}
"""Dataset of the base view -> dataset of the stored views, (M, V, ...) instead of (N, ...)."""


def dataset_specs(layout: ShardLayout) -> dict[str, Spec]:
    """Describe a shard's datasets.

    Args:
        layout: what decides them.

    Returns:
        Dataset name -> (shape, dtype), in the order they are written. The length of ``jpeg`` is
        ``FREE``.
    """
    n, frames, slots = layout.num_videos, layout.shape.num_frames, layout.num_slots
    specs = {
        **(_frame_specs(layout) if layout.stores == "frames" else _feature_specs(layout)),
        "frame_indices": ((n, frames), "<i4"),
        "num_frames_decoded": ((n,), "<i4"),
        "num_frames_expected": ((n,), "<i4"),
        "num_damaged_packets": ((n,), "<i4"),
        "video_id": ((n,), f"S{MAX_ID_BYTES}"),
        "class_index": ((n,), "<i4"),
        "split": ((n,), "S5"),
    }
    if slots:
        specs["mask_bits"] = ((n, frames, slots, MASK_BYTES), "u1")
        specs["mask_found"] = ((n, frames, slots), "?")
        specs["mask_score"] = ((n, frames, slots), "<f2")
    if layout.viewed_rows:
        lengths = len(layout.viewed_rows), layout.num_views
        for base, name in VIEW_OF.items():
            if base in specs:
                sizes, code = specs[base]
                specs[name] = ((*lengths, *sizes[1:]), code)
        specs["view_row"] = (lengths[:1], "<i4")
    return {name: (sizes, np.dtype(code)) for name, (sizes, code) in specs.items()}


def _feature_specs(layout: ShardLayout) -> dict[str, tuple[tuple[int, ...], str]]:
    n, shape = layout.num_videos, layout.shape
    return {
        "tokens": ((n, shape.num_frames, shape.num_tokens, shape.token_dim), "<f2"),
        "frame_embedding": ((n, shape.num_frames, shape.embedding_dim), "<f2"),
    }


def _frame_specs(layout: ShardLayout) -> dict[str, tuple[tuple[int, ...], str]]:
    """All JPEG files of the shard one after the other, and where each of them ends."""
    n, frames = layout.num_videos, layout.shape.num_frames
    return {
        "jpeg": ((FREE,), "u1"),
        "jpeg_end": ((n, frames), "<i8"),
        "frame_size": ((n, 2), "<i4"),
    }


def jpeg_bounds(ends: NDArray[np.int64], row: int) -> NDArray[np.int64]:
    """Where the JPEG files of one video begin and end.

    Args:
        ends: (N, F) of all files of the shard.
        row: of the video.

    Returns:
        (F + 1,) offsets into ``jpeg``; file f lies between entries f and f + 1.
    """
    first = row * ends.shape[1]
    begin = ends.flat[first - 1] if first else 0
    return np.concatenate([[begin], ends[row]])


class RowChecksums(NamedTuple):
    """Of one video, 64 hexadecimal digits each; its identity is in the dataset digest."""

    features: str
    """Of its features or frames alone."""
    content: str
    """Of these and of everything else that its row holds."""


def row_checksums(arrays: Mapping[str, NDArray], row: int, *, with_masks: bool) -> RowChecksums:
    """Compute the checksums of one video, in one pass over its row.

    Independent of the shard: names, dtypes, shapes and bytes of the row alone, so a video has the
    same checksums wherever it is stored.

    Args:
        arrays: the shard's datasets.
        row: index along their first axis.
        with_masks: the row has masks of its own, that is a train row of a shard with masks.

    Returns:
        Both.
    """
    digest, found = hashlib.sha256(), []
    for part in (_row_features(arrays, row), _row_rest(arrays, row, with_masks)):
        for name, value in part:
            digest.update(f"{name} {value.dtype.str} {value.shape}\n".encode())
            digest.update(value.tobytes())
        found.append(digest.hexdigest())
    return RowChecksums(*found)


def _row_features(arrays: Mapping[str, NDArray], row: int) -> Iterator[tuple[str, NDArray]]:
    if "jpeg" in arrays:
        bounds = jpeg_bounds(arrays["jpeg_end"], row)
        yield "jpeg", arrays["jpeg"][bounds[0] : bounds[-1]]
        yield "jpeg_end", bounds[1:] - bounds[0]
        yield "frame_size", arrays["frame_size"][row]
    for name in FEATURES:
        if name in arrays:
            yield name, arrays[name][row]


def _row_rest(
    arrays: Mapping[str, NDArray], row: int, with_masks: bool
) -> Iterator[tuple[str, NDArray]]:
    for name in ("frame_indices", *COUNTS, *(MASKS if with_masks else ())):
        yield name, np.asarray(arrays[name][row])
    if "view_row" in arrays:
        for place in np.flatnonzero(arrays["view_row"] == row):
            for name in VIEW_OF.values():
                if name in arrays:
                    yield name, arrays[name][place]
