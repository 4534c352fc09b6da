"""The folder of a run that trains: made, held, named as the latest, or removed as never begun."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

from i2st_model.runs import (
    CHECKPOINT_NAME,
    CONFIG_NAME,
    FAULT_NAME,
    LATEST_NAME,
    LOG_NAME,
    STATE_NAME,
)
from i2st_model.training.finite import NotFiniteError
from i2st_model.whole_files import explain_write
from pipeline.errors import ConfigError, I2STError, ResourceError
from pipeline.shards.lock import LOCK_NAME, FolderLock

GONE_ON_WITH = (STATE_NAME, FAULT_NAME, CHECKPOINT_NAME)
"""Files that are never removed, nor is the record of a run that has one."""
STALE_SECONDS = 60.0
"""No process takes so long between making and renaming a link."""


def new_run_folder(root: Path, name: str, *, today: date) -> Path:
    """Create ``root/<today>-<name>``, or the first free ``-2``, ``-3``, ... of that name.

    Args:
        root: folder of all runs, created if absent.
        name: what the run is called, e.g. the dataset.
        today: the date in front of it.

    Returns:
        The new, empty folder.

    Raises:
        ConfigError: the folder cannot be created.
        ResourceError: the disk is full or fails.
    """
    stem = f"{today.isoformat()}-{name}"
    number = 1
    while True:
        folder = root / (stem if number == 1 else f"{stem}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        except OSError as error:
            raise explain_write(error, folder, 0) from error
        else:
            return folder


@contextmanager
def locked(run_folder: Path) -> Iterator[None]:
    """Hold a run's folder, created if absent, against other processes.

    A folder in which nothing was recorded, as after settings that are refused, is removed at the
    end: by its holder alone, who knows that no other process has just begun in it.

    Args:
        run_folder: the run's folder.

    Raises:
        ConfigError: another process holds it, or it cannot be written.
    """
    if run_folder.exists() and not run_folder.is_dir():
        raise ConfigError(f"{run_folder} is a file; a folder was needed; pass another --run")
    with FolderLock(run_folder, work="training", flag="--run"):
        try:
            yield
        finally:
            _discard_unused(run_folder)


@contextmanager
def withdrawn_if_refused(run_folder: Path) -> Iterator[None]:
    """Take back what this process recorded of a new run that is refused before its first state.

    A run whose shards turn out to be damaged would otherwise be one to go on with for ever. After
    a kill, a full disk or a loss that is not finite it can be gone on with, or looked into.

    Args:
        run_folder: of a run that this process began and holds.
    """
    try:
        yield
    except (NotFiniteError, ResourceError):
        raise
    except I2STError:
        if not any((run_folder / name).exists() for name in GONE_ON_WITH):
            for name in (CONFIG_NAME, LOG_NAME):
                (run_folder / name).unlink(missing_ok=True)
        raise


def name_latest(run_folder: Path) -> None:
    """Let ``latest`` beside a run's folder lead to it; the old one leads on until it is replaced.

    Args:
        run_folder: of a finished run; where it is ``latest`` itself, nothing changes.

    Raises:
        ConfigError: the folder of all runs cannot be written.
        ResourceError: the disk is full or fails.
    """
    latest = run_folder.parent / LATEST_NAME
    if run_folder == latest:
        return
    temporary = latest.with_name(f"{LATEST_NAME}.{os.getpid()}.tmp")
    try:
        _remove_stale(latest)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(run_folder.name, target_is_directory=True)
        os.replace(temporary, latest)
    except OSError as error:
        raise explain_write(error, latest, 0, run=run_folder) from error


def _remove_stale(latest: Path) -> None:
    """Remove what processes left that were killed while they moved ``latest``."""
    for left in latest.parent.glob(f"{LATEST_NAME}.*.tmp"):
        # Not that of a process that moves it right now, here or on another machine.
        with suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime > STALE_SECONDS:
                left.unlink()


def _discard_unused(folder: Path) -> None:
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK_NAME}:
        (folder / LOCK_NAME).unlink(missing_ok=True)
        folder.rmdir()
