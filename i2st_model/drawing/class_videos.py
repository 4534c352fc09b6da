"""The videos of each class, arranged so that a draw costs the same from 67,013 as from ten."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassVideos:
    """The videos of one class that episodes draw from."""

    number: int
    name: str
    rows: list[int]
    groups: list[int]
    """Group number of each row, the same across classes; an unknown group is a group of its own."""
    group_sizes: Counter[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "group_sizes", Counter(self.groups))

    def can_part(self, shot: int, queries: int) -> bool:
        """Whether some groups hold ``queries`` clips while the others still hold ``shot``."""
        sums = 1  # bit s is set when some set of groups holds exactly s clips
        for size in self.group_sizes.values():
            sums |= sums << size
        held = sums >> queries
        return held != 0 and len(self.rows) - (queries + (held & -held).bit_length() - 1) >= shot


def number_groups(groups: Sequence[str] | NDArray[np.str_]) -> NDArray[np.int64]:
    """Number the groups of all videos; each empty name becomes a group of its own.

    Args:
        groups: (V,) str. Group of each video, empty where unknown.

    Returns:
        (V,) int64. Equal numbers mean the same source.
    """
    names, numbers = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    unknown = np.asarray(groups, dtype=str) == ""
    return np.where(unknown, len(names) + np.arange(len(numbers)), numbers).astype(np.int64)


def group_videos(
    class_index: NDArray[np.integer],
    groups: Sequence[str] | NDArray[np.str_],
    classes: Sequence[int],
    class_names: Sequence[str],
) -> list[ClassVideos]:
    """Collect the rows and group numbers of each class, in the order of ``classes``.

    Args:
        class_index: (V,) int. Class number of each video.
        groups: (V,) str. Group of each video, empty where unknown.
        classes: class numbers to draw from.
        class_names: names by class number, for messages.

    Returns:
        One entry per class, in the order of ``classes``; it may be empty.
    """
    numbers = number_groups(groups)
    found = []
    for number in classes:
        rows = np.flatnonzero(np.asarray(class_index) == number)
        found.append(
            ClassVideos(
                number=int(number),
                name=class_names[number],
                rows=rows.tolist(),
                groups=numbers[rows].tolist(),
            )
        )
    return found
