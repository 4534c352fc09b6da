"""Frames as JPEG bytes, for stores that keep pictures instead of features.

Shape letters: F frames, H and W pixels of a frame.
"""

from io import BytesIO
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from pipeline.errors import ShardError, VideoError

FRAME_SIDE = 256
"""Default short side: the field resizes to 256 before it crops."""
QUALITY = 95
MAX_SIDE = 65_500
"""libjpeg writes no more."""


def frame_store(frame_side: int = FRAME_SIDE) -> dict[str, Any]:
    """Say in a fingerprint, under ``store``, that frames are stored and what decides their bytes.

    Args:
        frame_side: longest that the short side of a stored frame is, in pixels.

    Returns:
        JSON values.
    """
    library = "libjpeg_turbo" if features.check_feature("libjpeg_turbo") else "jpg"
    return {
        "kind": "frames",
        "frame_side": frame_side,
        "format": {"name": "jpeg", "quality": QUALITY, "subsampling": "4:4:4"},
        "pillow": PIL.__version__,
        "libjpeg": f"{library} {features.version(library)}",
    }


def encode_frames(
    frames: NDArray[np.uint8], frame_side: int = FRAME_SIDE
) -> tuple[tuple[bytes, ...], tuple[int, int]]:
    """Shrink frames, unless they are small already, and compress each by itself.

    Args:
        frames: (F, H, W, 3) uint8. RGB.
        frame_side: longest that the short side becomes, in pixels.

    Returns:
        F JPEG files, and the height and width of their pictures.

    Raises:
        VideoError: the longer side stays beyond what JPEG can hold.
    """
    height, width = frames.shape[1:3]
    scale = min(1.0, frame_side / min(height, width))
    size = round(height * scale), round(width * scale)
    if max(size) > MAX_SIDE:
        raise VideoError(
            "too_large",
            f"frames of {size[1]}x{size[0]} pixels; at most {MAX_SIDE} along a side fit into a "
            "JPEG; scale the video down",
        )
    return tuple(_encode(frame, size) for frame in frames), size


def _encode(frame: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    picture, file = Image.fromarray(frame), BytesIO()
    if picture.size != size[::-1]:
        picture = picture.resize(size[::-1], Image.Resampling.BILINEAR)
    picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


def decode_frame(data: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Decode one stored frame.

    Args:
        data: a JPEG file.
        size: height and width that it must have.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ShardError: it is no JPEG, is damaged or has another size.
    """
    try:
        with Image.open(BytesIO(data), formats=["JPEG"]) as picture:
            # Before any pixel is decoded: a forged header may claim a huge picture.
            if picture.size != size[::-1] or picture.mode != "RGB":
                raise ValueError(f"{picture.mode} {picture.size}, needed RGB {size[::-1]}")
            return np.asarray(picture)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ShardError(
            f"a stored frame does not decode ({str(error)[:80]}); a JPEG as i2st writes it was "
            "needed; run `i2st verify`, delete the damaged shard and extract again"
        ) from error
