"""The forms that a table of results takes: text, Markdown, CSV, LaTeX, JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from i2st_model.reporting.result_tables import Cell, ResultTable
from i2st_model.statistics import Accuracy, Interval
from pipeline.columns import GAP, side_by_side, wrapped

ABSENT = "-"
BOLD = "\x1b[1m{}\x1b[0m"
"""For terminals; typer takes it off on the way into a file or a pipe."""


def _grid(
    table: ResultTable, word: Callable[[Cell], str], bold: Callable[[str], str]
) -> list[list[str]]:
    """Words of all cells, row by row, the best set off."""
    best = table.best
    return [
        [
            bold(word(cell)) if number in best[column] else word(cell)
            for column, cell in enumerate(row.cells)
        ]
        for number, row in enumerate(table.rows)
    ]


def _word(cell: Cell) -> str:
    return ABSENT if cell is None else str(cell)


def text(table: ResultTable, width: int | None = None) -> str:
    """Aligned columns, the best in bold on a terminal.

    Args:
        table: what to show.
        width: columns of the terminal; what does not fit goes on below. None keeps it in one piece.

    Returns:
        The table and its notes.
    """
    lines = [
        [table.head, *table.columns],
        *([row.label, *map(_word, row.cells)] for row in table.rows),
    ]
    best = (frozenset[int](), *table.best)
    columns = list(map(_column, zip(*lines, strict=True), best))
    # By the rule below a title: words may hold letters that show nothing.
    blocks = side_by_side([len(rule) for _, rule, *_ in columns], width)
    drawn = [
        "\n".join(GAP.join(line).rstrip() for line in zip(*(columns[n] for n in own), strict=True))
        for own in blocks
    ]
    notes = ["\n".join(wrapped(note, width)) if width else note for note in table.all_notes]
    return "\n".join(["\n\n".join(drawn), *notes])


def _column(words: Sequence[str], best: frozenset[int]) -> list[str]:
    """Words of a column below its title and a rule, all of one width."""
    width = max(map(len, words))
    title, *cells = (word.ljust(width) for word in words)
    bold = [
        cell.replace(word, BOLD.format(word), 1) if row in best else cell
        for row, (word, cell) in enumerate(zip(words[1:], cells, strict=True))
    ]
    return [title, "-" * width, *bold]


def markdown(table: ResultTable) -> str:
    """A table of GitHub's Markdown, the best in bold."""

    def escape(text: str) -> str:
        return (
            text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("_", "\\_")
        )

    def line(words: Sequence[str]) -> str:
        return f"| {' | '.join(words)} |"

    cells = _grid(table, lambda cell: escape(_word(cell)), lambda word: f"**{word}**")
    body = [line([escape(row.label), *own]) for row, own in zip(table.rows, cells, strict=True)]
    head = [
        line(list(map(escape, (table.head, *table.columns)))),
        line(["---"] * (1 + len(table.columns))),
    ]
    notes = [text for note in table.all_notes for text in ("", escape(note))]
    return "\n".join([*head, *body, *notes])


def comma_separated(table: ResultTable) -> str:
    """One column per number; notes are left out, since readers of CSV know no comments."""
    kinds = [_numbers_of(column) for column in zip(*(r.cells for r in table.rows), strict=True)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    titles = [
        f"{title} {part}".strip()
        for title, parts in zip(table.columns, kinds, strict=True)
        for part in parts
    ]
    writer.writerow([table.head, "uses_class_names", *titles])
    for row in table.rows:
        values = [
            _number(cell, part)
            for cell, parts in zip(row.cells, kinds, strict=True)
            for part in parts
        ]
        writer.writerow([row.name, str(row.uses_class_names).lower(), *values])
    return file.getvalue().rstrip("\n")


def _numbers_of(column: Sequence[Cell]) -> tuple[str, ...]:
    """What a cell of the column holds; the first is without a name."""
    if any(isinstance(cell, Accuracy) for cell in column):
        return "mean", "half_width"
    if any(isinstance(cell, Interval) for cell in column):
        return "mean", "low", "high"
    return ("",)


def _number(cell: Cell, part: str) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    return f"{getattr(cell, part):.4f}"


def latex(table: ResultTable) -> str:
    """A tabular of the booktabs package; notes are comments below it."""
    cells = _grid(table, _latex_cell, lambda word: f"\\textbf{{{word}}}")
    rows = [[_latex_text(row.label), *own] for row, own in zip(table.rows, cells, strict=True)]
    head = [_latex_text(word) for word in (table.head, *table.columns)]
    return "\n".join(
        [
            f"\\begin{{tabular}}{{l{'c' * len(table.columns)}}}",
            "\\toprule",
            f"{' & '.join(head)} \\\\",
            "\\midrule",
            *(f"{' & '.join(row)} \\\\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            *(f"% {note}" for note in table.all_notes),
        ]
    )


def _latex_cell(cell: Cell) -> str:
    if isinstance(cell, Accuracy):
        return f"{cell.mean:.2f} $\\pm$ {cell.half_width:.2f}"
    if isinstance(cell, Interval):
        return f"${cell.mean:+.2f}$ [${cell.low:+.2f}$, ${cell.high:+.2f}$]"
    return "--" if cell is None else _latex_text(cell)


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # at the start of a row it would be an option of the line before
    "]": "{]}",
}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def json_text(table: ResultTable) -> str:
    """One object, with unrounded numbers."""
    rows = [
        {
            table.head: row.name,
            "uses_class_names": row.uses_class_names,
            "cells": {
                title: _json_cell(cell)
                for title, cell in zip(table.columns, row.cells, strict=True)
            },
        }
        for row in table.rows
    ]
    return json.dumps({"rows": rows, "notes": list(table.notes)})


def _json_cell(cell: Cell) -> Any:
    if isinstance(cell, Accuracy):
        return {"mean": cell.mean, "half_width": cell.half_width}
    if isinstance(cell, Interval):
        return {"mean": cell.mean, "low": cell.low, "high": cell.high}
    return cell
