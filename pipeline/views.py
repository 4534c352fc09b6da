"""The square view of a frame that an encoder sees, and where that view lies in the frame's masks.

Shape letters: F frames, H and W the video's height and width, S side of the view, all in pixels.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.segmenters import MASK_SIDE

GEOMETRIES = ("center_crop", "full_frame")
DEFAULT_GEOMETRY = "center_crop"
_CROP_CELLS = slice(8, 120)
"""224 of 256 pixels, centred: 16/256 of the frame is cut from each side, 8 of 128 cells."""


def square_view(
    frames: NDArray[np.uint8], *, image_size: int, geometry: str = DEFAULT_GEOMETRY
) -> NDArray[np.uint8]:
    """Turn frames of any size into the square views of an encoder.

    ``center_crop`` is the field's test view: resize to 256 x 256 without keeping the aspect, crop
    the central 224 x 224 (Paper: inferred from HyRSM and MoLo), here scaled to any ``image_size``.
    ``full_frame`` resizes the whole frame. Each frame is resized by itself with Pillow's
    antialiased bilinear filter in fixed point, so its bytes depend neither on its neighbours nor
    on threads.

    Args:
        frames: (F, H, W, 3) uint8. RGB.
        image_size: S, the side of the view in pixels.
        geometry: one of ``GEOMETRIES``.

    Returns:
        (F, S, S, 3) uint8. RGB views in the order of the frames.

    Raises:
        ValueError: the frames are not (F, H, W, 3) uint8, or the geometry is unknown.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.shape} {frames.dtype}; needed: (F, H, W, 3) uint8")
    side, margin = _resized_side(image_size, geometry)
    views = np.empty((len(frames), image_size, image_size, 3), np.uint8)
    crop = slice(margin, margin + image_size)
    for view, frame in zip(views, frames, strict=True):
        resized = Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR)
        view[:] = np.asarray(resized)[crop, crop]
    return views


def mask_window(geometry: str = DEFAULT_GEOMETRY) -> slice:
    """Cells of the 128 x 128 mask that the view covers, the same along both axes."""
    _resized_side(MASK_SIDE, geometry)
    return _CROP_CELLS if geometry == "center_crop" else slice(0, MASK_SIDE)


def _resized_side(image_size: int, geometry: str) -> tuple[int, int]:
    """Side to resize a frame to and pixels to cut from each side, for a view of ``image_size``."""
    if geometry not in GEOMETRIES:
        raise ValueError(f"unknown geometry {geometry!r}; known: {', '.join(GEOMETRIES)}")
    if geometry == "full_frame":
        return image_size, 0
    side = round(image_size * 256 / 224)
    return side, (side - image_size) // 2
