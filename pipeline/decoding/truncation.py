"""Whether a file ends before its container says it does.

A copy that broke off decodes without any error up to its end, so the sizes in the container are the
only witness. Containers that carry no sizes (MPEG streams, FLV) have none.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MATROSKA_SEGMENT = 0x18538067
_MAX_BOXES = 100_000  # a fragmented hour has some thousands


def is_cut_short(path: Path) -> bool:
    """Say whether an AVI, MP4/MOV or Matroska/WebM file lacks its end.

    For AVI only the frames matter: a file whose index alone is missing is complete.
    """
    size_bytes = os.path.getsize(path)
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] == b"RIFF" and head[8:] == b"AVI ":
            return any(end > size_bytes for end in _movie_list_ends(file, size_bytes))
        if head[:4] == b"\x1aE\xdf\xa3":
            return any(end > size_bytes for end in _matroska_ends(file, size_bytes))
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"styp"):
            return any(end > size_bytes for end in _box_ends(file, size_bytes))
    return False


def _movie_list_ends(file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """Ends of the lists of frames; files above 1 GB consist of several RIFFs."""
    riff = 0
    while riff + 12 <= size_bytes:
        file.seek(riff + 4)
        riff_end = riff + 8 + int.from_bytes(file.read(4), "little")
        chunk = riff + 12
        while chunk + 12 <= min(riff_end, size_bytes):
            file.seek(chunk)
            header = file.read(12)
            end = chunk + 8 + int.from_bytes(header[4:8], "little")
            if header[:4] == b"LIST" and header[8:] == b"movi":
                yield end
            chunk = end + end % 2
        # A recorder that was switched off leaves size 0; the chain ends there.
        riff = max(riff_end + riff_end % 2, riff + 12)


def _box_ends(file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """Ends of the outermost ISO boxes."""
    start = 0
    for _ in range(_MAX_BOXES):
        if start + 8 > size_bytes:
            return
        file.seek(start)
        header = file.read(16)
        length = int.from_bytes(header[:4], "big")
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8:  # 0: to the end of the file
            return
        start += length
        yield start


def _matroska_ends(file: BinaryIO, size_bytes: int) -> Iterator[int]:
    """End of the segment; a live recording has none."""
    start = 0
    while start + 12 <= size_bytes:
        file.seek(start)
        header = file.read(12)
        id_length = _vint_length(header[0])
        length_at = header[id_length:]
        if not length_at or not id_length or not (width := _vint_length(length_at[0])):
            return
        length = int.from_bytes(length_at[:width], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:
            return
        start += id_length + width + length
        if int.from_bytes(header[:id_length], "big") == _MATROSKA_SEGMENT:
            yield start
            return


def _vint_length(first: int) -> int:
    """Bytes of an EBML number, from its first byte; 0 where that is invalid."""
    return 9 - first.bit_length() if first else 0
