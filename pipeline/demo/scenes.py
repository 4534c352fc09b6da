"""The world around an action: a moving textured background and distractors.

Shape letters: F frames, H and W the frame's height and width in pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.demo.actions import Action, Look
from pipeline.demo.painting import PATTERNS, Colour, Part, paint_part
from pipeline.demo.shapes import Shape, box, disk, flower, star

HEIGHT, WIDTH = 120, 160
_MARGIN = 24
"""Pixels the background may drift, each way."""
_OCTAVES = ((4, 0.7), (12, 0.45), (40, 0.3))
"""Cells along the height, and the contrast of their noise."""
_DISTRACTORS: tuple[Shape, ...] = (disk, box(0.9, 0.6), star(6, 0.3), flower(3, 0.3))


@dataclass(frozen=True, kw_only=True, slots=True)
class Footage:
    """A clip before it is encoded."""

    frames: NDArray[np.uint8]
    """(F, H, W, 3) RGB."""
    masks: NDArray[np.bool_]
    """(F, H, W) True on the parts of the action, also where they are partly transparent."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Background and distractors that several clips share, as if cut from one source."""

    background: NDArray[np.float32]
    """(H + 2 margins, W + 2 margins, 3) in [0, 1]."""
    distractors: tuple[Part, ...]


def make_scene(random: np.random.Generator) -> Scene:
    """Draw a scene; it holds nothing that depends on a class."""
    height, width = HEIGHT + 2 * _MARGIN, WIDTH + 2 * _MARGIN
    dark = np.asarray(_random_colour(random, 0.2, 0.45))
    light = np.asarray(_random_colour(random, 0.5, 0.85))
    noise = sum(
        contrast * (_noise(random, height, width, cells) - 0.5) for cells, contrast in _OCTAVES
    )
    amount = np.clip(0.5 + noise + 0.2 * _waves(random, height, width), 0, 1)[..., None]
    background = dark + amount * (light - dark)
    parts = tuple(_distractor(random) for _ in range(int(random.integers(1, 3))))
    return Scene(background=background.astype(np.float32), distractors=parts)


def film(
    action: Action, look: Look, scene: Scene, *, num_frames: int, random: np.random.Generator
) -> Footage:
    """Paint all frames of one clip.

    The action starts and ends at random moments near the ends of the clip and runs with random
    acceleration; camera and distractors drift without regard to it.

    Args:
        action: what happens.
        look: where, how large, in which colours.
        scene: what it happens in.
        num_frames: F, at least 2.
        random: decides timing and drift.

    Returns:
        Frames and exact masks.
    """
    phases = _phases(random, num_frames)
    camera = _drift(random, num_frames, 0.6 * _MARGIN / HEIGHT)
    paths = [_drift(random, num_frames, 0.25) for _ in scene.distractors]
    frames = np.empty((num_frames, HEIGHT, WIDTH, 3), np.uint8)
    masks = np.zeros((num_frames, HEIGHT, WIDTH), np.bool_)
    for number, phase in enumerate(phases):
        picture = _view(scene.background, camera[number])
        for part, path in zip(scene.distractors, paths, strict=True):
            paint_part(picture, part.moved(*path[number]))
        for part in action.parts(float(phase), look):
            masks[number] |= paint_part(picture, part)
        frames[number] = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return Footage(frames=frames, masks=masks)


def make_look(random: np.random.Generator) -> Look:
    """Draw place, size and colours of an action's object."""
    hue = random.random()
    return Look(
        x=float(random.uniform(0.52, 0.81)),
        y=float(random.uniform(0.42, 0.58)),
        size=float(random.uniform(0.21, 0.27)),
        angle=float(random.uniform(-0.15, 0.15)),
        paint=_from_hue(hue),
        second_paint=_from_hue(hue + float(random.uniform(0.3, 0.7))),
        third_paint=_from_hue(hue + float(random.uniform(0.3, 0.7)), 0.75),
        pattern=str(random.choice(PATTERNS)),
        mirrored=bool(random.integers(2)),
    )


def _random_colour(random: np.random.Generator, darkest: float, lightest: float) -> Colour:
    """A dull colour of random hue and a mean brightness in the given range."""
    grey = random.uniform(darkest, lightest)
    pure = np.asarray(_from_hue(random.random()))
    red, green, blue = (grey + 0.4 * (pure - pure.mean())).clip(0, 1).tolist()
    return red, green, blue


def _from_hue(hue: float, brightness: float = 1.0) -> Colour:
    """A strong colour; hue has period 1."""
    turns = 2 * np.pi * (hue + np.array((0.0, 1 / 3, 2 / 3)))
    red, green, blue = ((0.55 + 0.45 * np.cos(turns)) * brightness).tolist()
    return red, green, blue


def _distractor(random: np.random.Generator) -> Part:
    shape = _DISTRACTORS[int(random.integers(len(_DISTRACTORS)))]
    return Part(
        shape=shape,
        x=float(random.uniform(0.1, 1.2)),
        y=float(random.choice((0.12, 0.88))),
        size=float(random.uniform(0.07, 0.11)),
        paint=_random_colour(random, 0.25, 0.8),
        second_paint=_random_colour(random, 0.25, 0.8),
        pattern=str(random.choice(PATTERNS)),
        angle=float(random.uniform(0, 6)),
    )


def _phases(random: np.random.Generator, num_frames: int) -> NDArray[np.float64]:
    """(F,) phase of each frame: rest at 0, run, rest at 1."""
    start, end = random.uniform(0.0, 0.15), random.uniform(0.85, 1.0)
    time = np.linspace(0, 1, num_frames)
    phase = np.clip((time - start) / (end - start), 0, 1)
    return np.asarray(phase ** random.uniform(0.75, 1.33))


def _drift(random: np.random.Generator, num_frames: int, reach: float) -> NDArray[np.float64]:
    """(F, 2) smooth path of x and y within +-reach, in units of the frame's height."""
    time = np.linspace(0, 1, num_frames)[:, None]
    speed, start = random.uniform(-2.5, 2.5, 2), random.uniform(0, 2 * np.pi, 2)
    return np.asarray(reach * np.sin(start + speed * time))


def _view(background: NDArray[np.float32], offset: NDArray[np.float64]) -> NDArray[np.float32]:
    """(H, W, 3) window of the background, displaced by a fraction of a pixel if need be."""
    x, y = _MARGIN + offset * HEIGHT
    left, top = int(x), int(y)
    right_share, low_share = np.float32(x - left), np.float32(y - top)
    rows = background[top : top + HEIGHT + 1, left : left + WIDTH + 1]
    columns = rows[:-1] + low_share * (rows[1:] - rows[:-1])
    return columns[:, :-1] + right_share * (columns[:, 1:] - columns[:, :-1])


def _noise(random: np.random.Generator, height: int, width: int, cells: int) -> NDArray[np.float64]:
    """(height, width) random values on a coarse lattice, interpolated between."""
    lattice = random.random((cells + 2, 2 * cells + 2))
    row, column = (
        np.linspace(0, cells, height),
        np.linspace(0, 2 * cells * width / (2 * height), width),
    )
    i, j = row.astype(int), column.astype(int)
    v, u = (row - i)[:, None], (column - j)[None, :]
    top = lattice[i][:, j] * (1 - u) + lattice[i][:, j + 1] * u
    low = lattice[i + 1][:, j] * (1 - u) + lattice[i + 1][:, j + 1] * u
    return np.asarray(top * (1 - v) + low * v)


def _waves(random: np.random.Generator, height: int, width: int) -> NDArray[np.float64]:
    """(height, width) slanted stripes in [-1, 1] of random direction and period."""
    angle, period = random.uniform(0, np.pi), random.uniform(8, 30)
    y, x = np.mgrid[:height, :width]
    return np.asarray(np.sin((x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period)))
