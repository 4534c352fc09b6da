"""Tables of results: methods in rows, ways and shots in columns, in the form that is asked for."""

from collections.abc import Callable
from dataclasses import dataclass

from i2st_model.statistics import Accuracy
from pipeline.errors import ConfigError

MARK = "*"
"""Behind methods that know the names of the classes they are tested on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What one method reached."""

    name: str
    cells: tuple[Accuracy | None, ...]
    """One per column; None where there is nothing."""
    uses_class_names: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ResultTable:
    """Accuracies of methods."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    """Sentences below the table."""


def render(table: ResultTable, form: str) -> str:
    """Write a table out.

    Args:
        table: what to show.
        form: a key of `FORMS`.

    Returns:
        Text without a line feed at its end.

    Raises:
        ConfigError: there is no such form.
    """
    require_form(form)
    return FORMS[form](table)


def require_form(form: str) -> None:
    """Refuse an unknown form, before the work begins.

    Args:
        form: as for `render`.

    Raises:
        ConfigError: there is no such form.
    """
    if form not in FORMS:
        raise ConfigError(
            f"format={form!r} is unknown; known: {', '.join(FORMS)}; one is needed; pass one"
        )


def _text(table: ResultTable) -> str:
    lines = [("method", *table.columns), *(_words(row) for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    aligned = ["  ".join(w.ljust(n) for w, n in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*(line.rstrip() for line in aligned), *table.notes])


def _words(row: Row) -> tuple[str, ...]:
    cells = ("-" if cell is None else str(cell) for cell in row.cells)
    return row.name + MARK * row.uses_class_names, *cells


FORMS: dict[str, Callable[[ResultTable], str]] = {"table": _text}
