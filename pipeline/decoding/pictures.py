"""From a decoded picture to RGB as a player shows it."""

from pathlib import Path
from typing import cast

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.errors import VideoError

# By counterclockwise quarter turns.
_QUARTER_TURNS = (None, (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))


class PictureReader:
    """Converts the pictures of one video to RGB of one size.

    The size is that of the first picture converted: where a stream changes its size midway, later
    pictures are scaled to it. Pixels are taken as square; a sample aspect ratio is ignored.

    Args:
        path: the file the pictures come from, for messages.
        max_pixels: largest height x width of a picture.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        self._path, self._max_pixels = path, max_pixels
        # One reformatter keeps its scaler's tables from picture to picture.
        self._reformatter = VideoReformatter()
        self._width: int | None = None
        self._height: int | None = None

    def to_rgb(self, picture: VideoFrame) -> NDArray[np.uint8]:
        """Return (H, W, 3) RGB, mirrored and turned as the display matrix asks.

        Args:
            picture: one decoded picture, of any pixel format.

        Returns:
            (H, W, 3) uint8; for a quarter turn, (W, H, 3).

        Raises:
            VideoError: the picture is larger than the budget, whatever its header said.
        """
        refuse_large(self._path, picture.width, picture.height, self._max_pixels)
        if self._width is None:
            self._width, self._height = picture.width, picture.height
        matrix = _display_matrix(picture)
        converted = self._reformatter.reformat(
            picture, width=self._width, height=self._height, format="rgb24"
        )
        rgb = cast("NDArray[np.uint8]", converted.to_ndarray())
        return rgb if matrix is None else orient(rgb, matrix)


def refuse_large(path: Path, width: int, height: int, max_pixels: int) -> None:
    """Hold one picture to the budget.

    Args:
        path: the file, for the message.
        width: in pixels.
        height: in pixels.
        max_pixels: the most that width x height may be.

    Raises:
        VideoError: it has more than ``max_pixels`` pixels.
    """
    if width * height > max_pixels:
        raise VideoError(
            "too_large",
            f"{path} has frames of {width}x{height} = {width * height} pixels; "
            f"at most {max_pixels} are allowed; scale it down or raise max_pixels",
        )


def codec_options(max_pixels: int) -> dict[str, str]:
    """Options that stop a codec from allocating pictures far beyond the budget.

    FFmpeg counts rows padded by up to 64 pixels, hence the addition: 64 times its largest height.
    """
    return {"max_pixels": str(max_pixels + (64 << 14))}


def orient(rgb: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Mirror and turn a picture by multiples of 90 degrees.

    Args:
        rgb: (H, W, 3) the picture as coded.
        matrix: a, b, c, d of ISO 14496-12: the pixel x, y is shown at a x + c y, b x + d y. Other
            angles than multiples of 90 degrees are taken to the nearest.

    Returns:
        (H, W, 3), or (W, H, 3) after a quarter turn.
    """
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        rgb, flip_x, flip_y = rgb.transpose(1, 0, 2), c < 0, b < 0
    else:
        flip_x, flip_y = a < 0, d < 0
    return rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1]


def _display_matrix(picture: VideoFrame) -> tuple[int, int, int, int] | None:
    """a, b, c, d of the display matrix, or None where the picture is shown as it is coded."""
    try:
        side_data = picture.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV 18.1 stumbles over kinds it has no name for, such as EXIF; the angle is still told.
        return _QUARTER_TURNS[round(picture.rotation / 90) % 4]
    if side_data is None:
        return None
    values = np.frombuffer(cast(bytes, side_data), np.int32)
    return int(values[0]), int(values[1]), int(values[3]), int(values[4])
