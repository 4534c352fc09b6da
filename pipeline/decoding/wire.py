"""How a decode child and its parent talk: a JSON header and raw bytes, nothing that could run code.

A hostile video that takes over the child can therefore send wrong frames, and nothing worse. Frames
travel as they lie in memory: no pickle, no copy but the pipe's.
"""

import json
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pipeline.decoding.types import DecodedClip
from pipeline.errors import VideoError

_LENGTHS = struct.Struct("<IQ")  # bytes of the header, bytes of the payload
_MAX_HEADER_BYTES = 1 << 20
_COUNTS = ("num_frames_decoded", "num_frames_expected", "num_damaged_packets")


def send_path(pipe: BinaryIO, path: Path) -> None:
    """Ask for a video. The path travels as the bytes the file system knows."""
    _send(pipe, {}, os.fsencode(path))


def receive_path(pipe: BinaryIO) -> Path:
    """Return the path that was asked for.

    Args:
        pipe: the parent's end.

    Returns:
        The path.

    Raises:
        EOFError: the parent has closed the pipe, or is gone.
    """
    _, num_bytes = _receive_header(pipe)
    return Path(os.fsdecode(bytes(_receive_bytes(pipe, num_bytes))))


def send_result(pipe: BinaryIO, result: DecodedClip | VideoError) -> None:
    """Answer with frames or with the reason why there are none."""
    if isinstance(result, VideoError):
        _send(pipe, {"reason": result.reason, "message": str(result)}, b"")
        return
    header: dict[str, Any] = {name: getattr(result, name) for name in _COUNTS}
    header["shape"] = result.frames.shape
    header["frame_indices"] = result.frame_indices.tolist()
    # Byte for byte as (F, H, W, 3); contiguous as decoders give it, but for turned pictures.
    _send(pipe, header, np.ascontiguousarray(result.frames).data.cast("B"))


def receive_result(pipe: BinaryIO, max_bytes: int) -> DecodedClip | VideoError:
    """Return what the child answered.

    Args:
        pipe: the child's end.
        max_bytes: most bytes of frames that an honest child can send.

    Returns:
        The clip, its frames writable; or the error, which is returned and not raised.

    Raises:
        EOFError: the child has ended.
        ValueError: the answer is none; the child is not to be used again.
    """
    header, num_bytes = _receive_header(pipe)
    try:
        if "reason" in header:
            return VideoError(str(header["reason"]), str(header["message"]))
        num_frames, height, width, channels = (int(length) for length in header["shape"])
        counts = {name: int(header[name]) for name in _COUNTS}
        indices = np.array(header["frame_indices"], np.int32).reshape(num_frames)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"a child sent a broken header ({error!r})") from error
    if num_bytes > max_bytes or num_bytes != num_frames * height * width * channels:
        raise ValueError(f"a child sent {num_bytes} bytes as {header['shape']}; max {max_bytes}")
    frames = np.frombuffer(_receive_bytes(pipe, num_bytes), np.uint8)
    return DecodedClip(
        frames=frames.reshape(num_frames, height, width, channels), frame_indices=indices, **counts
    )


def _send(pipe: BinaryIO, header: dict[str, Any], payload: bytes | memoryview) -> None:
    text = json.dumps(header).encode()
    pipe.write(_LENGTHS.pack(len(text), len(payload)) + text)
    pipe.write(payload)
    pipe.flush()


def _receive_header(pipe: BinaryIO) -> tuple[dict[str, Any], int]:
    lengths = _receive_bytes(pipe, _LENGTHS.size)
    header_bytes, payload_bytes = _LENGTHS.unpack(lengths)
    if header_bytes > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {header_bytes} bytes; at most {_MAX_HEADER_BYTES}")
    try:
        header = json.loads(bytes(_receive_bytes(pipe, header_bytes)))
    except RecursionError as error:
        raise ValueError("a header nested too deep") from error
    return header, payload_bytes


def _receive_bytes(pipe: BinaryIO, count: int) -> bytearray:
    buffer = bytearray(count)
    view, filled = memoryview(buffer), 0
    while filled < count:
        received = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not received:
            raise EOFError("the pipe was closed")
        filled += received
    return buffer
