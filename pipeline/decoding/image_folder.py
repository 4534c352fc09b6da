"""A clip as a folder of JPEG or PNG frames, in natural order of their names (2 before 10)."""

import re
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from pipeline.clips import FrameChooser
from pipeline.decoding.pictures import PictureReader, codec_options, refuse_large
from pipeline.decoding.types import MAX_PIXELS, DecodedClip
from pipeline.errors import VideoError
from pipeline.suffixes import IMAGE_SUFFIXES

# The bytes decide, not the name: no other codec and no container ever sees the file.
_CODEC_OF_HEAD = {b"\xff\xd8\xff": "mjpeg", b"\x89PNG\r\n\x1a\n": "png"}


def read_image_folder(
    folder: Path, choose: FrameChooser, *, max_pixels: int = MAX_PIXELS
) -> DecodedClip:
    """Read the frames that ``choose`` picks from a folder of images.

    Images that do not decode are set aside and the choice is made again among the others. Only
    chosen images are opened, so an image that is damaged and never chosen counts as a frame.

    Args:
        folder: files with `IMAGE_SUFFIXES`; other files are left alone.
        choose: number of frames -> indices.
        max_pixels: largest height x width of an image.

    Returns:
        The frames; images set aside count as damaged packets.

    Raises:
        VideoError: no image is there or none of those chosen decodes, or one is too large.
    """
    paths = image_paths(folder)
    num_expected = len(paths)
    while paths:
        wanted = [int(index) for index in choose(len(paths))]
        reader = PictureReader(folder, max_pixels)
        pictures = {i: _read_image(paths[i], max_pixels) for i in sorted(set(wanted))}
        damaged = {paths[i] for i, picture in pictures.items() if picture is None}
        if not damaged:
            # As asked, so that the first frame of the clip decides the size.
            chosen = ((index, pictures[index]) for index in dict.fromkeys(wanted))
            rgb = {index: reader.to_rgb(picture) for index, picture in chosen if picture}
            return DecodedClip(
                frames=np.ascontiguousarray(np.stack([rgb[index] for index in wanted])),
                frame_indices=np.array(wanted, np.int32),
                num_frames_decoded=len(paths),
                num_frames_expected=num_expected,
                num_damaged_packets=num_expected - len(paths),
            )
        paths = [path for path in paths if path not in damaged]
    raise VideoError(
        "undecodable",
        f"{folder} holds {num_expected} images and 0 decode; at least 1 JPEG or PNG was needed; "
        "replace the folder",
    )


def image_paths(folder: Path) -> list[Path]:
    """Images of a folder in natural order: runs of digits compare as numbers."""
    paths = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    ]
    return sorted(paths, key=lambda path: (_natural_key(path.name), path.name))


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8] | None:
    """Return one JPEG or PNG as (H, W, 3) RGB, turned as its EXIF data asks; None if damaged.

    Args:
        path: the image.
        max_pixels: largest height x width.

    Returns:
        (H, W, 3) uint8, or None.

    Raises:
        VideoError: the image is larger than ``max_pixels``.
    """
    picture = _read_image(path, max_pixels)
    return None if picture is None else PictureReader(path, max_pixels).to_rgb(picture)


def _natural_key(name: str) -> list[tuple[int, str]]:
    parts = re.findall(r"(\d+)|(\D+)", name.lower(), re.ASCII)
    return [(int(digits), "") if digits else (-1, text) for digits, text in parts]


def _read_image(path: Path, max_pixels: int) -> av.VideoFrame | None:
    data = path.read_bytes()
    codec = next((c for head, c in _CODEC_OF_HEAD.items() if data.startswith(head)), None)
    if codec is None:
        return None
    height, width = _png_size(data) if codec == "png" else _jpeg_size(data)
    refuse_large(path, width, height, max_pixels)
    context = cast(VideoCodecContext, av.CodecContext.create(codec, "r"))
    context.options = codec_options(max_pixels)
    context.thread_count = 1
    try:
        pictures = [*context.decode(av.Packet(data)), *context.decode(None)]
    except av.MemoryError:
        raise
    except av.FFmpegError:
        return None
    return pictures[0] if pictures and not pictures[0].is_corrupt else None


def _png_size(data: bytes) -> tuple[int, int]:
    """Height and width of the header chunk, which comes first."""
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Height and width of the first frame header; 0, 0 where there is none."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            size = data[at + 5 : at + 9]
            return int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0, 0
