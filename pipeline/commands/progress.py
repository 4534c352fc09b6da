"""How far a command is, on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.commands.console import note

SECONDS_PER_LINE = 10
"""Where stderr is no terminal, progress is one line per so many seconds."""

Show = Callable[[int, int, str], None]
"""Steps done, steps in all, and a few words."""


@contextmanager
def progress(what: str) -> Iterator[Show]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line per SECONDS_PER_LINE."""
    if not sys.stderr.isatty():
        yield _lines(what)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[words]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None, words="")
        yield lambda done, total, words: bar.update(task, completed=done, total=total, words=words)


def _lines(what: str) -> Show:
    last = time.monotonic()

    def show(done: int, total: int, words: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS_PER_LINE or done == total:
            last = now
            note(f"{what} {done}/{total}" + (f": {words}" if words else ""))

    return show
