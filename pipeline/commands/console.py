"""What commands print, results on stdout and the rest on stderr, and the exit codes they give."""

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import typer

from pipeline.columns import aligned, wrapped

EXIT_SOME_SKIPPED = 3
EXIT_REFUSED = 4
EXIT_SIGNAL = 128
"""Plus the signal's number, as shells do."""
NO_BREAK = "\xa0"


def note(sentence: str) -> None:
    """Print a sentence that is no result."""
    # typer.echo writes past what a bar puts in place of stderr, and so into the bar's line.
    print(_fitting(sentence) if sys.stderr.isatty() else sentence, file=sys.stderr)


def say(sentence: str) -> None:
    """Print a sentence that belongs to a result."""
    typer.echo(_fitting(sentence) if sys.stdout.isatty() else sentence)


def _fitting(sentence: str) -> str:
    """Break lines at words, never inside of `code`, which is copied, or of 1.0 +/- 0.1 %."""

    def fit(line: str) -> str:
        whole = r"`[^`]*`|\S+ \+/- \S+( %)?"
        line = re.sub(whole, lambda found: found[0].replace(" ", NO_BREAK), line)
        return "\n".join(wrapped(line, terminal_width(), "  ")).replace(NO_BREAK, " ")

    return "\n".join(map(fit, sentence.splitlines()))


def printable(text: str) -> str:
    """Escape what a file name could do to a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def show_settings(settings: Mapping[str, Any]) -> None:
    """Print every setting of a run, defaults included, in lines that fit the terminal."""
    # A value with a space in it stays on one line.
    words = [word.replace(" ", NO_BREAK) for word in _setting_words(settings)]
    print(_fitting("settings: " + " ".join(words)), file=sys.stderr)


def _setting_words(settings: Mapping[str, Any]) -> Iterator[str]:
    """Settings as words name=value; what is None or empty says nothing."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _setting_words({f"{name}.{key}": one for key, one in value.items()})
        elif isinstance(value, list | tuple):
            yield from [f"{name}={','.join(map(str, value))}"] if value else []
        elif value is not None:
            yield f"{name}={value}"


def terminal_width() -> int:
    """Columns to write in: those of the terminal, 80 where there is none, never over 100."""
    return min(100, shutil.get_terminal_size().columns)


def byte_words(size_bytes: int) -> str:
    """Write a size with a unit that a reader can grasp."""
    for unit, length in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes >= length:
            return f"{size_bytes / length:.1f} {unit}"
    return f"{size_bytes} bytes"


def duration_words(seconds: float) -> str:
    """Write a time with a unit that a reader can grasp."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def show_json(value: Any) -> None:
    """Print a result as one line of JSON."""
    typer.echo(json.dumps(value))


def show_result(values: Mapping[str, Any], as_json: bool) -> None:
    """Print a flat result: one JSON object, or a line per value, sizes and times in words, too."""
    if as_json:
        show_json(values)
        return
    width = max(map(len, values)) + 2
    for name, value in values.items():
        typer.echo(f"{name:{width}}{_value_words(name, value)}")


def _value_words(name: str, value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "-", True: "yes", False: "no"}[value]
    if name in ("bytes", "size_bytes"):
        return f"{value} ({byte_words(value)})"
    if name == "hours":
        return f"{value} ({duration_words(value * 3600)})"
    if name == "seconds" and value >= 60:
        return f"{value} ({duration_words(value)})"
    return printable(str(value))


def show_table(rows: Sequence[Sequence[Any]], titles: Sequence[str]) -> None:
    """Print rows in aligned columns that fit the terminal; numbers to the right."""
    words = [["-" if value is None else printable(str(value)) for value in row] for row in rows]
    numbers = [
        column
        for column in range(len(titles))
        if rows and all(isinstance(row[column], int | float) for row in rows)
    ]
    typer.echo(aligned(titles, words, table_width(), right=numbers))


def table_width() -> int | None:
    """Columns of the terminal; None into a file or a pipe, where every row stays on one line."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def failure_line(failure: Any) -> str:
    """Say why a video was skipped."""
    video_id, message = printable(failure.video_id), printable(failure.message)
    return f"skipped {video_id}: {failure.reason}: {message}"
