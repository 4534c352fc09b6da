"""Which files a fingerprint depends on, so that a later run can see without reading them again."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple


class FileState(NamedTuple):
    """A file, and how to see whether it is still the same."""

    path: str
    size_bytes: int
    """-1, as the times, where there is no file."""
    mtime_ns: int
    ctime_ns: int
    """Of the last change of anything, which no program sets back, as copying sets back the other.
    """


_noted: ContextVar[list[FileState] | None] = ContextVar("noted_files", default=None)


@contextmanager
def noting_files() -> Iterator[list[FileState]]:
    """Collect the files that are noted inside; one block inside another collects for itself."""
    files: list[FileState] = []
    token = _noted.set(files)
    try:
        yield files
    finally:
        _noted.reset(token)


def note_file(path: Path) -> None:
    """Note a file that is about to be read for a fingerprint, or is looked for before another.

    A folder stands for the names in it.
    """
    files = _noted.get()
    if files is not None:
        files.append(state_or_absence(path))


def file_state(path: Path) -> FileState:
    """Size and times of last change of a file, symbolic links followed.

    Args:
        path: of the file.

    Returns:
        Its state, under its absolute path.

    Raises:
        OSError: there is none.
    """
    status = os.stat(path)
    return FileState(os.path.abspath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def state_or_absence(path: Path) -> FileState:
    """State of a file, or that there is none."""
    try:
        return file_state(path)
    except (FileNotFoundError, NotADirectoryError):
        return FileState(os.path.abspath(path), -1, -1, -1)


def files_below(folder: Path) -> Iterator[Path]:
    """Files of a folder and of all below it, folders behind symbolic links too, in no order."""
    for place, _, names in os.walk(folder, followlinks=True):
        yield from (Path(place, name) for name in names)
