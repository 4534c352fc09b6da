"""What commands print, results on stdout and the rest on stderr, and the exit codes they give."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

EXIT_SOME_SKIPPED = 3
EXIT_REFUSED = 4
EXIT_SIGNAL = 128
"""Plus the signal's number, as shells do."""


def note(sentence: str) -> None:
    """Print a sentence that is no result."""
    typer.echo(sentence, err=True)


def printable(text: str) -> str:
    """Escape what a file name could do to a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show_settings(settings: Mapping[str, Any]) -> None:
    """Print every setting of a run, defaults included."""
    import textwrap

    words = [f"{name}={value}" for name, value in settings.items() if value is not None]
    note(textwrap.fill("settings: " + " ".join(words), 100, subsequent_indent="  "))


def show_json(value: Any) -> None:
    """Print a result as one line of JSON."""
    typer.echo(json.dumps(value))


def show_result(values: Mapping[str, Any], as_json: bool) -> None:
    """Print a flat result: one JSON object, or a line per value."""
    if as_json:
        show_json(values)
        return
    width = max(map(len, values)) + 2
    for name, value in values.items():
        typer.echo(f"{name:{width}}{'-' if value is None else printable(str(value))}")


def show_table(rows: Sequence[Sequence[Any]], titles: Sequence[str]) -> None:
    """Print rows in aligned columns; numbers to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE, pad_edge=False)
    for column, title in enumerate(titles):
        numeric = rows and all(isinstance(row[column], int | float) for row in rows)
        table.add_column(title, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*("-" if value is None else printable(str(value)) for value in row))
    # Into a file or a pipe every row stays on one line. Brackets in a class name are no markup.
    width = None if sys.stdout.isatty() else 200
    Console(highlight=False, markup=False, emoji=False, width=width).print(table)


def failure_line(failure: Any) -> str:
    """Say why a video was skipped."""
    video_id, message = printable(failure.video_id), printable(failure.message)
    return f"skipped {video_id}: {failure.reason}: {message}"
