"""Files that are whole or absent, whatever dies while they are written."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from i2st_model.runs import CONFIG_NAME
from pipeline.errors import ConfigError, I2STError, ResourceError
from pipeline.shards.files import explain_os_error, sync_folder


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
        raise explain_write(error, path, len(data)) from error


def explain_write(
    error: OSError, path: Path, needed_bytes: int, *, run: Path | None = None
) -> I2STError:
    """Judge a failed write as stage one does, and say what a run can do about it.

    Args:
        error: of the system.
        path: what was to be written.
        needed_bytes: what it takes.
        run: folder of the run; by default the one that ``path`` lies in.

    Returns:
        ConfigError where the folder is none to write to, else ResourceError.
    """
    why = f"cannot write {path} ({error.strerror})"
    if isinstance(explain_os_error(error, path, needed_bytes), ConfigError):
        return ConfigError(f"{why}; a writable folder was needed; pass another --run")
    run = run or path.parent
    # Without its settings nothing was begun that could be resumed.
    begun = (run / CONFIG_NAME).is_file()
    remedy = f"go on with `i2st train --run {run} --resume`" if begun else "run the command again"
    return ResourceError(
        f"{why}; {needed_bytes} bytes were needed on a healthy disk; make room, then {remedy}"
    )


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    write_whole(path, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())
