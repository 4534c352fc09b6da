"""Shapes as functions of the plane: negative inside, positive outside, about 1 unit in radius.

Values are distances near the outline, which is all that antialiasing needs. x points right, y down,
as in images; X is any array shape.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]
Shape = Callable[[Plane, Plane], Plane]
"""(X) x and (X) y -> (X) signed distance."""


def disk(x: Plane, y: Plane) -> Plane:
    """Disk of radius 1."""
    return np.hypot(x, y) - 1


def ring(x: Plane, y: Plane) -> Plane:
    """Ring from radius 0.55 to 1."""
    return np.abs(np.hypot(x, y) - 0.775) - 0.225


def box(half_width: float, half_height: float) -> Shape:
    """Rectangle around the origin."""

    def distance(x: Plane, y: Plane) -> Plane:
        return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)

    return distance


def frame(half_width: float, half_height: float, thickness: float) -> Shape:
    """Outline of a rectangle, as thick as told, drawn inwards."""
    outside = box(half_width, half_height)
    inside = box(half_width - thickness, half_height - thickness)
    return lambda x, y: np.maximum(outside(x, y), -inside(x, y))


def star(points: int, depth: float) -> Shape:
    """Star whose valleys lie at radius 1 - depth."""

    def distance(x: Plane, y: Plane) -> Plane:
        turn = np.arctan2(x, -y) * (points / (2 * np.pi))
        return np.hypot(x, y) - (1 - depth * 2 * np.abs(turn - np.round(turn)))

    return distance


def flower(petals: int, depth: float) -> Shape:
    """Round petals whose valleys lie at radius 1 - depth; depth 0 is a disk."""

    def distance(x: Plane, y: Plane) -> Plane:
        angle = np.arctan2(y, x) * petals
        return np.hypot(x, y) - (1 - depth * (0.5 - 0.5 * np.cos(angle)))

    return distance


def gear(teeth: int) -> Shape:
    """Cog wheel with a hole."""

    def distance(x: Plane, y: Plane) -> Plane:
        radius = np.hypot(x, y)
        tooth = np.clip(2.5 * np.cos(np.arctan2(y, x) * teeth), -1, 1)
        return np.maximum(radius - (0.86 + 0.14 * tooth), 0.3 - radius)

    return distance


def jaw(half_angle: float) -> Shape:
    """Disk with a mouth of twice ``half_angle`` radians, open to the right."""

    def distance(x: Plane, y: Plane) -> Plane:
        radius = np.hypot(x, y)
        mouth = radius * np.sin(np.clip(half_angle - np.abs(np.arctan2(y, x)), -1.5, 1.5))
        return np.maximum(radius - 1, mouth)

    return distance
