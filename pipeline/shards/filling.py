"""Rows of videos -> the arrays of one shard."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from pipeline.manifests import SPLITS
from pipeline.segmenters import Masks
from pipeline.shards.layout import FREE, MAX_ID_BYTES, VIEW_OF, dataset_specs
from pipeline.shards.records import FeatureShape, ShardLayout
from pipeline.shards.rows import VideoFeatures, VideoFrames, ViewFeatures

StoredRow = VideoFeatures | VideoFrames


def common_layout(rows: Sequence[StoredRow], fingerprint: Mapping[str, Any]) -> ShardLayout:
    """Layout of a shard, from its first row; `fill_arrays` sees whether the others agree.

    Args:
        rows: at least one, sorted by video id.
        fingerprint: says whether frames are stored, and which views.

    Returns:
        The layout.

    Raises:
        ValueError: ids repeat or cannot be stored, or a row is not what the fingerprint and its
            split ask for.
    """
    _check_ids([row.video.video_id for row in rows])
    stores = "frames" if "store" in fingerprint else "features"
    num_views = len(fingerprint.get("views", ()))
    for row in rows:
        _check_row(row, stores, num_views)
    train = [i for i, row in enumerate(rows) if row.video.split == "train"]
    slots = {
        0 if masks is None else masks.found.shape[1] for masks in (rows[i].masks for i in train)
    }
    if len(slots) > 1:
        raise ValueError(
            f"train rows of a shard have {sorted(slots)} mask slots; give all the same"
        )
    return ShardLayout(
        stores=stores,
        shape=_shape(rows[0]),
        num_videos=len(rows),
        num_slots=max(slots, default=0),
        num_views=num_views,
        viewed_rows=tuple(train) if num_views else (),
    )


def fill_arrays(
    layout: ShardLayout, rows: Sequence[StoredRow], class_index: Mapping[str, int]
) -> dict[str, NDArray]:
    """Put the rows into arrays.

    Args:
        layout: of the shard.
        rows: in the order of the shard.
        class_index: class name -> number.

    Returns:
        Dataset name -> array, in the order they are written.

    Raises:
        ValueError: a value has another shape or dtype than the layout.
    """
    sizes = {"jpeg": sum(len(data) for row in rows for data in getattr(row, "jpegs", ()))}
    arrays = {
        name: np.zeros([sizes[name] if n == FREE else n for n in lengths], dtype)
        for name, (lengths, dtype) in dataset_specs(layout).items()
    }
    for i, row in enumerate(rows):
        for name, value in _values(row, class_index).items():
            _put(arrays[name], i, value, name, row.video.video_id)
    if layout.stores == "frames":
        _fill_jpegs(arrays, cast(Sequence[VideoFrames], rows))
    for place, i in enumerate(layout.viewed_rows):
        arrays["view_row"][place] = i
        video_id = rows[i].video.video_id
        for number, view in enumerate(cast(VideoFeatures, rows[i]).views):
            for name, value in _view_values(view).items():
                _put(arrays[VIEW_OF[name]][place], number, value, f"a view's {name}", video_id)
    return arrays


def _values(row: StoredRow, class_index: Mapping[str, int]) -> dict[str, Any]:
    own = (
        {"frame_size": np.array(row.frame_size, np.int32)}
        if isinstance(row, VideoFrames)
        else {"tokens": row.tokens, "frame_embedding": row.frame_embedding}
    )
    return {
        **own,
        "frame_indices": row.frame_indices,
        "num_frames_decoded": row.num_frames_decoded,
        "num_frames_expected": row.num_frames_expected,
        "num_damaged_packets": row.num_damaged_packets,
        "video_id": row.video.video_id.encode(),
        "class_index": class_index[row.video.class_name],
        "split": row.video.split.encode(),
        **_mask_values(row.masks),
    }


def _view_values(view: ViewFeatures) -> dict[str, NDArray]:
    return {
        "tokens": view.tokens,
        "frame_embedding": view.frame_embedding,
        "frame_indices": view.frame_indices,
        **_mask_values(view.masks),
    }


def _mask_values(masks: Masks | None) -> dict[str, NDArray]:
    if masks is None:
        return {}
    return {"mask_bits": masks.bits, "mask_found": masks.found, "mask_score": masks.score}


def _fill_jpegs(arrays: Mapping[str, NDArray], rows: Sequence[VideoFrames]) -> None:
    files = [data for row in rows for data in row.jpegs]
    arrays["jpeg"][:] = np.frombuffer(b"".join(files), np.uint8)
    ends = np.cumsum([len(data) for data in files])
    arrays["jpeg_end"][:] = ends.reshape(arrays["jpeg_end"].shape)


def _put(array: NDArray, i: int, value: Any, name: str, video_id: str) -> None:
    is_array = isinstance(value, np.ndarray)
    if is_array and (value.shape != array.shape[1:] or value.dtype != array.dtype):
        raise ValueError(
            f"{name} of {video_id} is {value.dtype} {value.shape}, the shard's other rows "
            f"need {array.dtype} {array.shape[1:]}"
        )
    array[i] = value


def _check_ids(ids: Sequence[str]) -> None:
    for video_id in ids:
        if not video_id.isprintable() or not 0 < len(video_id.encode()) <= MAX_ID_BYTES:
            raise ValueError(
                f"video id {video_id!r} must be printable and 1 to {MAX_ID_BYTES} bytes of UTF-8"
            )
    if len(set(ids)) != len(ids):
        raise ValueError(f"video ids of a shard must differ, got {ids}")


def _check_row(row: StoredRow, stores: str, num_views: int) -> None:
    video_id, split = row.video.video_id, row.video.split
    if split not in SPLITS or (row.masks is not None and split != "train"):
        raise ValueError(
            f"{video_id} is of split {split!r} and has {'masks' if row.masks else 'no masks'}; "
            f"splits are {SPLITS}, and masks depend on the label, so only train rows may have them"
        )
    if isinstance(row, VideoFrames) != (stores == "frames"):
        raise ValueError(f"{video_id} is a {type(row).__name__}; the fingerprint says {stores}")
    if isinstance(row, VideoFrames):
        if len(row.jpegs) != len(row.frame_indices) or not all(row.jpegs):
            raise ValueError(
                f"{video_id} has {len(row.jpegs)} pictures, some of them empty, "
                f"for {len(row.frame_indices)} frames"
            )
        return
    wanted = num_views if split == "train" else 0
    if len(row.views) != wanted:
        raise ValueError(f"{video_id} of {split} has {len(row.views)} views; {wanted} were needed")
    if any((view.masks is None) != (row.masks is None) for view in row.views):
        raise ValueError(f"{video_id} has masks in some of its views; all or none were needed")


def _shape(row: StoredRow) -> FeatureShape:
    if isinstance(row, VideoFrames):
        return FeatureShape(len(row.jpegs), 0, 0, 0)
    num_frames, num_tokens, token_dim = row.tokens.shape
    return FeatureShape(num_frames, num_tokens, token_dim, row.frame_embedding.shape[1])
