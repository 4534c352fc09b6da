"""How far a command is, on stderr; a step that takes long is seen to go on."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread
from typing import Protocol

from pipeline.commands.console import duration_words, note

SECONDS_PER_LINE = 10
"""Where stderr is no terminal, progress is one line per so many seconds."""
SILENT_SECONDS = 60
"""Without a step for so long, a line says that work goes on: a segmenter on a CPU takes minutes."""


class Show(Protocol):
    """How far the work is: steps done, steps in all, a few words, and what is under way."""

    def __call__(
        self,
        done: int,
        total: int,
        words: str,
        *,
        under_way: str = "",
        seconds_left: float | None = None,
    ) -> None:
        """Show it; what is under way is said in place of the words."""
        ...


@contextmanager
def progress(what: str) -> Iterator[Show]:
    """Show progress on stderr: a bar on a terminal, elsewhere a line per SECONDS_PER_LINE."""
    if not sys.stderr.isatty():
        with _lines(what) as show:
            yield show
        return
    from pipeline.commands.progress_bar import bar

    with bar(what) as show:
        yield show


@contextmanager
def _lines(what: str) -> Iterator[Show]:
    lines, ended = _Lines(what), Event()

    def watch() -> None:
        while not ended.wait(SILENT_SECONDS / 4):
            lines.break_silence()

    watcher = Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield lines.show
    finally:
        ended.set()
        watcher.join()


class _Lines:
    """Lines about steps, for the thread that works and the one that watches it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = Lock()
        self._said = self._stepped = time.monotonic()
        self._count, self._under_way = "", ""

    def show(
        self,
        done: int,
        total: int,
        words: str,
        *,
        under_way: str = "",
        seconds_left: float | None = None,
    ) -> None:
        left = "" if seconds_left is None or under_way else f"{duration_words(seconds_left)} left"
        with self._lock:
            now = self._stepped = time.monotonic()
            self._count, self._under_way = f" {done}/{total}", under_way
            words = ", ".join(filter(None, (left, under_way or words)))
            ended = done == total and not under_way
            if now - self._said >= SECONDS_PER_LINE or ended:
                self._said = now
                note(f"{self._what}{self._count}" + (f": {words}" if words else ""))

    def break_silence(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - max(self._said, self._stepped) >= SILENT_SECONDS:
                self._said = now
                doing = self._under_way or "at work"
                note(f"{self._what}{self._count}: {doing} for {now - self._stepped:.0f} s")
