"""The demo's classes: eleven processes, each shown forwards and backwards.

A process and its reverse share their object and the set of their frames; only the order of time
tells them apart, so a method that averages over frames cannot.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.demo.painting import Colour, Part
from pipeline.demo.shapes import Shape, box, disk, flower, frame, gear, jaw, ring, star


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What differs between clips of one class."""

    x: float
    y: float
    size: float
    angle: float
    """A small tilt, in radians."""
    paint: Colour
    second_paint: Colour
    third_paint: Colour
    """For the second object of a process."""
    pattern: str
    mirrored: bool
    """Left and right exchanged."""

    def part(self, shape: Shape, *, size: float = 1.0, angle: float = 0.0, **paint: object) -> Part:
        """A part at the clip's place, its size relative to the clip's."""
        values: dict[str, object] = {
            "paint": self.paint,
            "second_paint": self.second_paint,
            "pattern": self.pattern,
            **paint,
        }
        return Part(
            shape=shape,
            x=self.x,
            y=self.y,
            size=self.size * size,
            angle=self.angle + angle,
            **values,  # type: ignore[arg-type]
        )

    @property
    def side(self) -> float:
        """1, or -1 where the clip is mirrored."""
        return -1.0 if self.mirrored else 1.0


Process = Callable[[float, Look], list[Part]]
"""Phase in [0, 1] and a clip's look -> parts, painted in this order."""


def _between(start: float, end: float, phase: float) -> float:
    return start + (end - start) * phase


def _grow(phase: float, look: Look) -> list[Part]:
    return [look.part(star(5, 0.5), size=_between(0.4, 1.5, phase))]


def _open(phase: float, look: Look) -> list[Part]:
    turn = np.pi if look.mirrored else 0.0
    return [look.part(jaw(_between(0.03, 1.25, phase)), angle=turn)]


def _join(phase: float, look: Look) -> list[Part]:
    gap = _between(2.0, 0.4, phase) * look.size * look.side
    turn = 2.0 * phase
    first = look.part(gear(8), size=0.8, angle=turn)
    second = look.part(gear(8), size=0.8, angle=0.39 - turn, paint=look.third_paint)
    return [first.moved(-gap, 0), second.moved(gap, 0)]


def _show(phase: float, look: Look) -> list[Part]:
    return [look.part(ring, opacity=_between(0.0, 1.0, phase))]


def _raise(phase: float, look: Look) -> list[Part]:
    turn = -look.side * _between(0.0, np.pi / 2, phase)
    bar = look.part(box(1.35, 0.3), angle=turn)
    hinge = look.part(disk, size=0.42, paint=look.third_paint, pattern="plain")
    reach, tilt = look.side * look.size, look.angle + turn
    corner = (-0.5 * reach, 0.9 * look.size)
    lever = bar.moved(reach * np.cos(tilt), reach * np.sin(tilt))
    return [lever.moved(*corner), hinge.moved(*corner)]


def _bloom(phase: float, look: Look) -> list[Part]:
    petals = look.part(flower(7, _between(0.0, 0.72, phase)), size=_between(0.7, 1.35, phase))
    heart = look.part(disk, size=0.34 * phase + 0.02, paint=look.third_paint, pattern="plain")
    return [petals, heart]


def _ripen(phase: float, look: Look) -> list[Part]:
    green, red = np.array((0.2, 0.65, 0.15)), np.array((0.95, 0.1, 0.1))
    colour = tuple((green + (red - green) * phase).tolist())
    stalk = look.part(box(0.08, 0.4), size=0.9, paint=(0.4, 0.25, 0.1), pattern="plain")
    fruit = look.part(flower(2, 0.12), paint=colour, second_paint=colour, pattern="plain")
    return [stalk.moved(0, -look.size * 1.05), fruit]


def _cover(phase: float, look: Look) -> list[Part]:
    tile = look.part(star(4, 0.55), size=1.1)
    curtain = look.part(box(1.15, 1.15), paint=look.third_paint, pattern="stripes")
    return [tile, curtain.moved(look.side * look.size * _between(2.4, 0.0, phase), 0)]


def _fill(phase: float, look: Look) -> list[Part]:
    level = _between(0.04, 1.05, phase)
    water = look.part(box(0.78, level), paint=look.paint, pattern="plain")
    lean = look.angle
    down = (1.05 - level) * look.size
    jar = look.part(frame(0.9, 1.2, 0.16), paint=(0.75, 0.8, 0.85), pattern="plain")
    return [water.moved(-np.sin(lean) * down, np.cos(lean) * down), jar]


def _assemble(phase: float, look: Look) -> list[Part]:
    apart = _between(1.15, 0.43, phase) * look.size
    pieces = []
    for number in range(4):
        corner = look.angle + np.pi / 4 + number * np.pi / 2
        piece = look.part(box(0.42, 0.42), angle=(1 - phase) * 1.2)
        distance = apart * np.sqrt(2)
        pieces.append(piece.moved(distance * np.cos(corner), distance * np.sin(corner)))
    return pieces


def _rise(phase: float, look: Look) -> list[Part]:
    moon = look.part(disk, size=0.95).moved(0, look.size * _between(1.6, -1.2, phase))
    hill = look.part(box(1.5, 0.75), paint=look.third_paint, pattern="checks")
    return [moon, hill.moved(0, 1.4 * look.size)]


@dataclass(frozen=True, slots=True)
class Action:
    """A class of the demo dataset."""

    name: str
    split: str
    process: Process
    backwards: bool

    def parts(self, phase: float, look: Look) -> list[Part]:
        """Parts at a phase of the action, in [0, 1]."""
        return self.process(1 - phase if self.backwards else phase, look)


_PAIRS: tuple[tuple[str, str, str, Process], ...] = (
    ("train", "grow_star", "shrink_star", _grow),
    ("train", "open_jaw", "close_jaw", _open),
    ("train", "join_gears", "part_gears", _join),
    ("train", "show_ring", "hide_ring", _show),
    ("train", "raise_bar", "lower_bar", _raise),
    ("train", "bloom_flower", "wilt_flower", _bloom),
    ("val", "ripen_fruit", "unripen_fruit", _ripen),
    ("val", "cover_tile", "uncover_tile", _cover),
    ("test", "fill_jar", "drain_jar", _fill),
    ("test", "assemble_square", "scatter_square", _assemble),
    ("test", "rise_moon", "set_moon", _rise),
)

ACTIONS: tuple[Action, ...] = tuple(
    action
    for split, forwards, backwards, process in _PAIRS
    for action in (
        Action(forwards, split, process, backwards=False),
        Action(backwards, split, process, backwards=True),
    )
)
"""22 classes, twins beside each other."""
