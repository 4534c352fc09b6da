"""Folders of training runs: their names, the newest of them, and files that are whole or absent.

runs/latest                  leads to the run that was finished last
runs/2026-11-22-hmdb51/
    config.json              what was asked, the shards' digest, the thread count
    log.jsonl                one line per logged step
    state.safetensors        while training: all that a resumed run needs
    fault.safetensors        after a loss that was not finite: the state before that step
    checkpoint.safetensors   at the end: the network; a run without it is unfinished
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError, ConfigError, I2STError, ResourceError
from pipeline.shards.files import explain_os_error, sync_folder
from pipeline.shards.lock import LOCK_NAME, FolderLock

CONFIG_NAME = "config.json"
LOG_NAME = "log.jsonl"
STATE_NAME = "state.safetensors"
FAULT_NAME = "fault.safetensors"
CHECKPOINT_NAME = "checkpoint.safetensors"
INDEX_NAME = "index.json"
LATEST_NAME = "latest"
MAX_CONFIG_BYTES = 1 << 24
STALE_SECONDS = 60.0


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
            raise _explain(error, folder, 0) from error
        else:
            return folder


def find_newest_run(root: Path) -> Path:
    """Return the folder below ``root`` whose checkpoint is the newest.

    Args:
        root: folder of all runs.

    Returns:
        The run's folder.

    Raises:
        ConfigError: no run below ``root`` is finished.
    """
    finished = _newest(root, CHECKPOINT_NAME)
    if finished is not None:
        return finished
    unfinished = _newest(root, STATE_NAME)
    if unfinished is not None:
        raise ConfigError(
            f"no finished run in {root}, {unfinished} is unfinished; a checkpoint was needed; "
            f"run `i2st train --run {unfinished} --resume`"
        )
    raise ConfigError(f"no finished run in {root}; a checkpoint was needed; run `i2st train`")


def unfinished_runs(root: Path) -> list[Path]:
    """Return the runs below ``root`` without a checkpoint; the furthest saved, newest one first."""
    runs = [
        path.parent for path in root.glob(f"*/{CONFIG_NAME}") if path.parent.name != LATEST_NAME
    ]
    open_runs = [run for run in runs if not (run / CHECKPOINT_NAME).is_file()]

    def age(run: Path) -> tuple[bool, int, str]:
        saved = (run / STATE_NAME).is_file()
        latest = run / (STATE_NAME if saved else CONFIG_NAME)
        return saved, latest.stat().st_mtime_ns, run.name

    return sorted(open_runs, key=age, reverse=True)


def find_newest_unfinished(root: Path) -> Path:
    """Return the first of `unfinished_runs`.

    Args:
        root: folder of all runs.

    Returns:
        The run's folder.

    Raises:
        ConfigError: every run below ``root`` is finished.
    """
    runs = unfinished_runs(root)
    if not runs:
        raise ConfigError(
            f"no unfinished run in {root}; one was needed to resume; run `i2st train`, or name "
            "the run with --run"
        )
    return runs[0]


def name_latest(run_folder: Path) -> None:
    """Let ``latest`` beside a run's folder lead to it; the old one leads on until it is replaced.

    Args:
        run_folder: of a finished run.

    Raises:
        ConfigError: the folder of all runs cannot be written.
    """
    latest = run_folder.parent / LATEST_NAME
    temporary = latest.with_name(f"{LATEST_NAME}.{os.getpid()}.tmp")
    try:
        _remove_stale(latest)
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(run_folder.name, target_is_directory=True)
        os.replace(temporary, latest)
    except OSError as error:
        raise _explain(error, latest, 0) from error


def _remove_stale(latest: Path) -> None:
    """Remove what processes left that were killed while they moved ``latest``."""
    for left in latest.parent.glob(f"{LATEST_NAME}.*.tmp"):
        # Not that of a process that moves it right now, here or on another machine.
        with suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime > STALE_SECONDS:
                left.unlink()


def discard_unused(folder: Path) -> None:
    """Remove a run's folder in which nothing was recorded, as after settings that are refused."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {LOCK_NAME}:
        (folder / LOCK_NAME).unlink(missing_ok=True)
        folder.rmdir()


def find_newest_shards(root: Path) -> Path:
    """Return the folder below ``root``, or ``root`` itself, whose index.json is the newest.

    Args:
        root: folder of all extractions, or one of them.

    Returns:
        The folder that holds index.json.

    Raises:
        ConfigError: no finished extraction lies below ``root``.
    """
    if (root / INDEX_NAME).is_file():
        return root
    newest = _newest(root, INDEX_NAME)
    if newest is None:
        raise ConfigError(
            f"no finished extraction in {root}; a folder with {INDEX_NAME} was needed; "
            "run `i2st extract`"
        )
    return newest


def _newest(root: Path, name: str) -> Path | None:
    # The name breaks ties of coarse clocks, so that the answer never depends on the listing.
    found = [
        (path.stat().st_mtime_ns, path.parent.name, path)
        for path in root.glob(f"*/{name}")
        if path.parent.name != LATEST_NAME  # it is one of the others
    ]
    return max(found)[2].parent if found else None


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old or the new one, whatever dies in between.

    Args:
        path: final place; its folder exists.
        data: the whole content.

    Raises:
        ConfigError: the folder cannot be written.
        ResourceError: the disk is full or fails.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _explain(error, path, len(data)) from error


def _explain(error: OSError, path: Path, needed_bytes: int) -> I2STError:
    """Judge a failed write as stage one does, and say what a run can do about it."""
    why = f"cannot write {path} ({error.strerror})"
    if isinstance(explain_os_error(error, path, needed_bytes), ConfigError):
        return ConfigError(f"{why}; a writable folder was needed; pass another --run")
    return ResourceError(
        f"{why}; {needed_bytes} bytes were needed on a healthy disk; make room, then go on with "
        f"`i2st train --run {path.parent} --resume`"
    )


@contextmanager
def locked(run_folder: Path) -> Iterator[None]:
    """Hold a run's folder, created if absent, against other processes.

    Args:
        run_folder: the run's folder.

    Raises:
        ConfigError: another process holds it, or it cannot be written.
    """
    if run_folder.exists() and not run_folder.is_dir():
        raise ConfigError(f"{run_folder} is a file; a folder was needed; pass another --run")
    lock = FolderLock(run_folder)
    try:
        lock.__enter__()
    except ConfigError as error:
        # The lock was made for extractions and says so.
        said = str(error).replace("one extraction", "one training").replace("--out", "--run")
        raise ConfigError(said) from None
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def read_config(run_folder: Path) -> dict[str, Any]:
    """Return what ``config.json`` of a run says.

    Args:
        run_folder: the run's folder.

    Returns:
        The JSON object.

    Raises:
        ConfigError: the folder holds no run.
        CheckpointError: the file is damaged.
    """
    path = run_folder / CONFIG_NAME
    if not path.is_file():
        raise ConfigError(f"{path} is absent; a run was needed; name a folder made by `i2st train`")
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("it is too large")
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is damaged ({str(error)[:80]}); a JSON object was needed; start another run"
        ) from None
    return values


class StepLog:
    """One JSON object per logged step, without clock times: equal runs log equal bytes.

    Args:
        run_folder: the run's folder.
        after_step: a resumed run's last step; later lines, of work that was lost, are cut off.
            None starts an empty log.
    """

    def __init__(self, run_folder: Path, *, after_step: int | None) -> None:
        self._path = run_folder / LOG_NAME
        kept = b"" if after_step is None else self._lines_until(after_step)
        write_whole(self._path, kept)

    def _lines_until(self, step: int) -> bytes:
        kept = []
        for line in self._path.read_bytes().splitlines() if self._path.exists() else []:
            try:
                if json.loads(line)["step"] > step:
                    break
            except (ValueError, KeyError, TypeError):
                break  # the line that the kill cut short
            kept.append(line + b"\n")
        return b"".join(kept)

    def write(self, values: Mapping[str, Any]) -> None:
        """Append one line.

        Args:
            values: JSON values by name.

        Raises:
            ConfigError: the log cannot be written.
            ResourceError: the disk is full or fails.
        """
        line = json.dumps(values, allow_nan=False) + "\n"
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line)
        except OSError as error:
            raise _explain(error, self._path, len(line)) from error

    def sync(self) -> None:
        """Bring all lines to the disk: before a state is saved, from which the log goes on."""
        try:
            with open(self._path, "rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise _explain(error, self._path, 0) from error
