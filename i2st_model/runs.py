"""Folders of training runs: what lies in them, what they record, and which is the newest.

runs/latest                  leads to the run that was finished last
runs/2026-11-22-hmdb51/
    config.json              what was asked, the shards' digest, the thread count
    log.jsonl                one line per logged step
    state.safetensors        while training: all that a resumed run needs
    fault.safetensors        after a loss that was not finite: the state before that step
    checkpoint.safetensors   at the end: the network; a run without it is unfinished
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError, ConfigError
from pipeline.shards.lock import is_held

CONFIG_NAME = "config.json"
LOG_NAME = "log.jsonl"
STATE_NAME = "state.safetensors"
FAULT_NAME = "fault.safetensors"
CHECKPOINT_NAME = "checkpoint.safetensors"
INDEX_NAME = "index.json"
LATEST_NAME = "latest"
MAX_CONFIG_BYTES = 1 << 24


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
    unfinished = unfinished_runs(root)
    if unfinished:
        raise ConfigError(
            f"no finished run in {root}, {unfinished[0]} is unfinished; a checkpoint was needed; "
            f"run `i2st train --run {unfinished[0]} --resume`"
        )
    raise ConfigError(f"no finished run in {root}; a checkpoint was needed; run `i2st train`")


def unfinished_runs(root: Path, *, digest: str | None = None) -> list[Path]:
    """Return the runs below ``root`` to go on with; the furthest saved, newest one first.

    Args:
        root: folder of all runs.
        digest: of the shards that the runs shall be of; None takes runs of any.

    Returns:
        Folders of runs without a checkpoint that no process trains right now.
    """
    # The lock first: who lets go of it has written the checkpoint, or has left the run unfinished.
    ages = [
        (_age(path.parent), path.parent)
        for path in root.glob(f"*/{CONFIG_NAME}")
        if path.parent.name != LATEST_NAME
        and not is_held(path.parent)
        and not (path.parent / CHECKPOINT_NAME).is_file()
    ]
    runs = [run for _, run in sorted(ages, reverse=True)]
    return runs if digest is None else [run for run in runs if _digest(run) == digest]


def _digest(run: Path) -> Any:
    """Digest of the shards of a run; None where its record cannot be read."""
    with suppress(ConfigError, CheckpointError, OSError):
        return read_config(run).get("digest")
    return None


def _age(run: Path) -> tuple[bool, int]:
    """Whether a run saved its state, and when it last wrote; 0 where it was removed meanwhile."""
    for name in (STATE_NAME, CONFIG_NAME):
        with suppress(FileNotFoundError):
            return name == STATE_NAME, (run / name).stat().st_mtime_ns
    return False, 0


def find_newest_unfinished(root: Path) -> Path:
    """Return the first of `unfinished_runs`.

    Args:
        root: folder of all runs.

    Returns:
        The run's folder.

    Raises:
        ConfigError: every run below ``root`` is finished, or trains right now.
    """
    runs = unfinished_runs(root)
    if not runs:
        raise ConfigError(
            f"no unfinished run in {root} that no process trains; one was needed to resume; "
            "run `i2st train`, or name the run with --run"
        )
    return runs[0]


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
