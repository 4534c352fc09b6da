"""A table of results, before it takes a form: accuracies, differences, and which is best."""

from collections.abc import Sequence
from dataclasses import dataclass

from i2st_model.statistics import Accuracy, Interval

MARK = "*"
"""Behind methods that know the names of the classes they are tested on."""
MARK_NOTE = f"{MARK} knows the names of the classes it is tested on."

Cell = Accuracy | Interval | str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What one method or setting reached."""

    name: str
    cells: tuple[Cell, ...]
    """One per column; None where there is nothing."""
    uses_class_names: bool = False

    @property
    def label(self) -> str:
        """Name with the mark, where it has one."""
        return self.name + MARK * self.uses_class_names


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultTable:
    """Accuracies, differences and words; the best accuracy of a column is set off."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """Sentences below the table."""
    head: str = "method"
    """Above the names of the rows."""

    @property
    def best(self) -> tuple[frozenset[int], ...]:
        """For each column the rows with the highest accuracy, as printed; none of a single one."""
        return tuple(map(_best, zip(*(row.cells for row in self.rows), strict=True)))

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Notes, with those that the marks need."""
        marked = any(row.uses_class_names for row in self.rows)
        return (*self.notes, *([MARK_NOTE] if marked else []))


def _best(column: Sequence[Cell]) -> frozenset[int]:
    means = {row: round(one.mean, 2) for row, one in enumerate(column) if isinstance(one, Accuracy)}
    if len(means) < 2:
        return frozenset()
    highest = max(means.values())
    return frozenset(row for row, mean in means.items() if mean == highest)
