"""Antialiased painting of parts onto frames, in numpy.

Shape letters: H and W the frame's height and width in pixels.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.demo.shapes import Plane, Shape

Colour = tuple[float, float, float]
"""Red, green, blue in [0, 1]."""
PATTERNS = ("plain", "stripes", "dots", "checks", "circles")


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A painted shape."""

    shape: Shape
    x: float
    """Centre, in units of the frame's height, from the frame's left border."""
    y: float
    """Centre, from the frame's top border."""
    size: float
    """Radius of the shape's unit, in units of the frame's height."""
    paint: Colour
    second_paint: Colour
    """What the pattern alternates with."""
    pattern: str = "plain"
    angle: float = 0.0
    """Clockwise, in radians."""
    opacity: float = 1.0

    def moved(self, x: float, y: float) -> "Part":
        """The same part, further by (x, y)."""
        return replace(self, x=self.x + x, y=self.y + y)


def paint_part(picture: NDArray[np.float32], part: Part) -> NDArray[np.bool_]:
    """Paint a part over a picture, in place.

    Coverage of a pixel is the signed distance at its centre, clipped to one pixel: exact for
    straight edges, and cheaper than supersampling.

    Args:
        picture: (H, W, 3) float32. RGB in [0, 1].
        part: what to paint.

    Returns:
        (H, W) bool. True where the part covers at least half of a pixel and can be seen.
    """
    height, width = picture.shape[:2]
    covered = np.zeros((height, width), np.bool_)
    reach = 1.5 * part.size + 2 / height
    left, right = _span(part.x - reach, part.x + reach, height, width)
    top, bottom = _span(part.y - reach, part.y + reach, height, height)
    if left >= right or top >= bottom or part.opacity <= 0:
        return covered
    x, y = _own_coordinates(part, np.arange(left, right), np.arange(top, bottom), height)
    distance = part.shape(x, y)
    coverage = np.clip(0.5 - distance * (part.size * height), 0, 1)
    colour = _paint(part, x, y, distance)
    window = picture[top:bottom, left:right]
    window += (coverage * np.float32(part.opacity))[..., None] * (colour - window)
    covered[top:bottom, left:right] = (coverage >= 0.5) & (part.opacity >= 0.15)
    return covered


def _span(low: float, high: float, height: int, limit: int) -> tuple[int, int]:
    return max(0, int(low * height)), min(limit, int(high * height) + 1)


def _own_coordinates(
    part: Part, columns: NDArray[np.int_], rows: NDArray[np.int_], height: int
) -> tuple[Plane, Plane]:
    """Pixel centres in the part's turned unit coordinates."""
    x = (((columns + 0.5) / height - part.x) / part.size).astype(np.float32)[None, :]
    y = (((rows + 0.5) / height - part.y) / part.size).astype(np.float32)[:, None]
    cosine, sine = np.float32(np.cos(part.angle)), np.float32(np.sin(part.angle))
    return cosine * x + sine * y, cosine * y - sine * x


def _paint(part: Part, x: Plane, y: Plane, distance: Plane) -> NDArray[np.float32]:
    """Pattern of two paints, a dark outline, and light from the upper left."""
    amount = _pattern(part.pattern, x, y)[..., None]
    first = np.asarray(part.paint, np.float32)
    colour = first + amount * (np.asarray(part.second_paint, np.float32) - first)
    light = np.clip(1.0 - 0.22 * (x + y), 0.55, 1.3)
    outline = np.clip((distance + 0.12) * (part.size * 60), 0, 1)
    shaded = colour * (light * (1 - 0.7 * outline))[..., None]
    return np.clip(shaded, 0, 1).astype(np.float32)


def _pattern(name: str, x: Plane, y: Plane) -> Plane:
    """Share of the second paint, in [0, 1]."""
    if name == "plain":
        return np.zeros_like(x + y)
    waves = {
        "stripes": np.sin(9 * x) + 0 * y,
        "dots": np.cos(9 * x) * np.cos(9 * y) * 2 - 1,
        "checks": np.sin(7 * x) * np.sin(7 * y) * 2,
        "circles": np.sin(14 * np.hypot(x, y)),
    }
    return np.clip(0.5 + 2 * waves[name], 0, 1).astype(np.float32)
