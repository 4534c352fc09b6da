"""Masks of one video from an npz file.

The file is untrusted: nothing is unpickled, and no array may declare more than the file holds.
"""

import zipfile
import zlib
from collections.abc import Sequence
from io import BytesIO
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pipeline.segmenters import NUM_SLOTS
from pipeline.segmenters.mask_files.given import (
    MAX_FILE_BYTES,
    GivenMasks,
    MaskFileError,
    check_count,
    check_size,
    empty_masks,
)

# What zipfile and numpy's parser of headers raise beside ValueError and OSError.
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, RuntimeError),
    *(TokenError, SyntaxError, TypeError),
)
# What np.savez and np.savez_compressed write.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_npz(path: Path, frame_indices: Sequence[int], num_frames: int) -> GivenMasks:
    """Read ``bits`` with ``height`` and ``width``; optional ``found``, ``score`` and ``frames``.

    ``bits`` is uint8 in np.packbits order: (n, ceil(H * W / 8)) for the actor alone, or
    (n, S, ceil(H * W / 8)) with slots. Row i is frame i, and then n must be the number of frames
    that decode; with ``frames`` (n,) it is frame ``frames[i]``. ``found`` and ``score`` are (n,) or
    (n, S).

    Args:
        path: the file.
        frame_indices: (F,) frames asked for, by number among those that decode; may repeat.
        num_frames: frames that decode.

    Returns:
        Masks of the F frames.

    Raises:
        MaskFileError: the file is no npz, or its arrays do not fit that form or the video.
    """
    arrays = _load_arrays(path)
    height, width = _scalar(arrays, "height"), _scalar(arrays, "width")
    check_size(height, width)
    bits = _slot_bits(arrays, height, width)
    rows = _rows(arrays.get("frames"), len(bits), frame_indices, num_frames)
    slots = bits.shape[1]
    given = empty_masks(len(rows), height, width)
    known = rows >= 0
    chosen = np.unpackbits(bits[rows[known]], axis=-1, count=height * width)
    given.pixels[known, :slots] = chosen.reshape(-1, slots, height, width)
    given.found[known, :slots] = _per_slot(arrays, "found", bits.shape[:2])[rows[known]] > 0
    given.score[known, :slots] = _per_slot(arrays, "score", bits.shape[:2])[rows[known]]
    return given


def _scalar(arrays: dict[str, NDArray[Any]], name: str) -> int:
    value = arrays.get(name)
    if value is None or value.size != 1 or value.dtype.kind not in "iu":
        raise MaskFileError(f"{name} is {value}; needed one integer beside bits")
    return int(value.item())


def _slot_bits(arrays: dict[str, NDArray[Any]], height: int, width: int) -> NDArray[np.uint8]:
    """Check ``bits`` and return it with its axis of slots."""
    bits, num_bytes = arrays.get("bits"), (height * width + 7) // 8
    shape = None if bits is None else bits.shape
    if bits is not None and bits.ndim == 2:
        bits = bits[:, None]
    if (
        bits is None
        or bits.dtype != np.uint8
        or bits.ndim != 3
        or not 1 <= bits.shape[1] <= NUM_SLOTS
        or bits.shape[2] != num_bytes
    ):
        raise MaskFileError(
            f"bits are {shape}; needed uint8 (frames, {num_bytes}), or (frames, up to {NUM_SLOTS} "
            f"slots, {num_bytes}), for masks of {height} x {width}"
        )
    return bits


def _rows(
    frames: NDArray[Any] | None, num_rows: int, frame_indices: Sequence[int], num_frames: int
) -> NDArray[np.intp]:
    """Row of each frame asked for; -1 where the file has none."""
    if frames is None:
        check_count(num_rows, num_frames)
        return np.asarray(frame_indices, np.intp)
    if frames.shape != (num_rows,) or frames.dtype.kind not in "iu":
        raise MaskFileError(
            f"frames are {frames.dtype} {frames.shape}; needed integers ({num_rows},)"
        )
    row_of = {int(frame): row for row, frame in enumerate(frames)}
    if row_of and not 0 <= min(row_of) <= max(row_of) < num_frames:
        raise MaskFileError(
            f"frames go from {min(row_of)} to {max(row_of)}; needed 0 to {num_frames - 1}"
        )
    return np.array([row_of.get(int(index), -1) for index in frame_indices], np.intp)


def _per_slot(
    arrays: dict[str, NDArray[Any]], name: str, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Optional (n,) or (n, S) values as (n, S) in [0, 1]; ones where absent."""
    values = arrays.get(name)
    if values is None:
        return np.ones(shape, np.float32)
    if values.dtype.kind not in "biuf" or values.shape not in (shape, shape[:1]):
        raise MaskFileError(f"{name} is {values.dtype} {values.shape}; needed numbers {shape}")
    numbers = values.astype(np.float32).reshape(shape[0], -1)
    if not ((numbers >= 0) & (numbers <= 1)).all():
        raise MaskFileError(f"{name} leaves [0, 1]; needed values in it")
    return np.broadcast_to(numbers, shape)


def _load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {
                info.filename.removesuffix(".npy"): _load_array(archive, info)
                for info in archive.infolist()
            }
    except _DAMAGED as error:
        raise MaskFileError(f"not an npz file ({error})") from error


def _load_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    """Load one member, after its header is known to declare no more than it holds."""
    if info.file_size > MAX_FILE_BYTES:
        raise MaskFileError(f"{info.filename} has {info.file_size} bytes; limit {MAX_FILE_BYTES}")
    if info.compress_type not in _METHODS:
        raise MaskFileError(
            f"{info.filename} is compressed by method {info.compress_type}; needed: none or "
            "deflate, as np.savez_compressed"
        )
    stream = BytesIO(archive.read(info))
    version = npy.read_magic(stream)
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject or prod(shape) * dtype.itemsize > info.file_size:
        raise MaskFileError(f"{info.filename} declares {dtype} {shape}; its bytes do not hold that")
    stream.seek(0)
    array: NDArray[Any] = np.load(stream, allow_pickle=False)
    return array
