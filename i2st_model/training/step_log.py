"""The log of a run: what every step showed, and nothing that another run would show otherwise."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from i2st_model.runs import LOG_NAME
from i2st_model.whole_files import explain_write, write_whole


class StepLog:
    """One JSON object per logged step, without clock times: equal runs log equal bytes.

    Args:
        run_folder: the run's folder.
        after_step: a resumed run's last step; what was logged of work behind it, which is lost,
            is cut off. None starts an empty log.
    """

    def __init__(self, run_folder: Path, *, after_step: int | None) -> None:
        self._path = run_folder / LOG_NAME
        kept = b"" if after_step is None else self._lines_until(after_step)
        write_whole(self._path, kept)

    def _lines_until(self, step: int) -> bytes:
        kept = []
        for line in self._path.read_bytes().splitlines() if self._path.exists() else []:
            try:
                values = json.loads(line)
                # A note at the step itself is of an earlier resume, from which nothing is left.
                if values["step"] > step or (values["step"] == step and "note" in values):
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
            raise explain_write(error, self._path, len(line)) from error

    def sync(self) -> None:
        """Bring all lines to the disk: before a state is saved, from which the log goes on."""
        try:
            with open(self._path, "rb") as file:
                os.fsync(file.fileno())
        except OSError as error:
            raise explain_write(error, self._path, 0) from error
