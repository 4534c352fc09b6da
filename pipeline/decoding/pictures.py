"""From a decoded picture to RGB as a player shows it."""

from typing import cast

import numpy as np
from av import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray


class PictureReader:
    """Converts the pictures of one video to RGB of one size.

    The size is that of the first picture converted: where a stream changes its size midway, later
    pictures are scaled to it. Pixels are taken as square; a sample aspect ratio is ignored.
    """

    def __init__(self) -> None:
        # One reformatter keeps its scaler's tables from picture to picture.
        self._reformatter = VideoReformatter()
        self._width: int | None = None
        self._height: int | None = None

    def to_rgb(self, picture: VideoFrame) -> NDArray[np.uint8]:
        """Return (H, W, 3) RGB, mirrored and turned as the display matrix asks."""
        if self._width is None:
            self._width, self._height = picture.width, picture.height
        matrix = _display_matrix(picture)
        converted = self._reformatter.reformat(
            picture, width=self._width, height=self._height, format="rgb24"
        )
        rgb = cast("NDArray[np.uint8]", converted.to_ndarray())
        return rgb if matrix is None else orient(rgb, matrix)


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
    side_data = picture.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return None
    values = np.frombuffer(cast(bytes, side_data), np.int32)
    return int(values[0]), int(values[1]), int(values[3]), int(values[4])
