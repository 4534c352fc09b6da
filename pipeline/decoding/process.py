"""One decoding process as its parent sees it: started when needed, killed when late, replaced.

It is a plain Python process rather than one of multiprocessing: a script needs no
``if __name__ == "__main__"``, daemonic workers may have it, and nothing is pickled.
"""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

from pipeline.decoding.child import READY, ChildSettings
from pipeline.decoding.types import DecodedClip
from pipeline.decoding.wire import receive_result, send_path
from pipeline.errors import BackendError, VideoError

_START_SECONDS = 120.0
_CLOSE_SECONDS = 1.0
_START_ATTEMPTS = 3
_ATTEMPTS = 2  # a child may die of something else, so a second one is risked, and no third
_PIPE_BYTES = 1 << 20  # the most that Linux gives an ordinary user
# The child finds the same modules as this process, wherever it was started.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from pipeline.decoding.child import main; main()"
)


class ChildProcess:
    """One decoding process, started when needed and again after it was lost."""

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._max_bytes = 3 * settings.max_pixels * settings.num_indices
        self._process: subprocess.Popen[bytes] | None = None
        self._is_retired = False
        self._lock = threading.Lock()

    def read(self, path: Path) -> DecodedClip | VideoError:
        """Return the frames of one video, or why there are none."""
        end = ""
        for _ in range(_ATTEMPTS):
            process = self._started()
            with _Deadline(process, self._settings.timeout_seconds) as deadline:
                try:
                    send_path(process.stdin, path)  # type: ignore[arg-type]
                    return receive_result(process.stdout, self._max_bytes)  # type: ignore[arg-type]
                except (EOFError, OSError, ValueError):
                    end = self.end()
            if deadline.has_passed:
                return VideoError(
                    "timeout",
                    f"{path} was still decoding after {self._settings.timeout_seconds:g} s; "
                    "replace the file or raise `--decode-timeout`",
                )
        return VideoError(
            "poison",
            f"{path} ended {_ATTEMPTS} decoding processes, the last with {end}; replace the file",
        )

    def retire(self) -> None:
        """End the process for good; a read under way comes back at once."""
        with self._lock:
            self._is_retired = True
            process = self._process
        if process is not None:
            process.kill()

    def _started(self) -> "subprocess.Popen[bytes]":
        end = ""
        for _ in range(_START_ATTEMPTS):
            with self._lock:
                if self._is_retired:
                    raise BackendError("decoding was closed while videos were waiting; run again")
                if self._process is not None:
                    return self._process
                self._process = process = _start(self._settings)
            with _Deadline(process, _START_SECONDS):
                line = process.stdout.readline()  # type: ignore[union-attr]
            if line == READY:
                return process
            end = self.end()
        raise BackendError(
            f"a decoding process of {self._settings.decoder!r} did not start ({end}); "
            "a working installation was needed; see the lines above"
        )

    def end(self) -> str:
        """Make sure the process is over, and say how it ended."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return "no process"
        try:
            code = process.wait(_CLOSE_SECONDS)  # it closed its pipe, so it is about to end
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        for pipe in (process.stdin, process.stdout):
            _close(pipe)
        names = {number.value: number.name for number in signal.Signals}
        return f"signal {names.get(-code, -code)}" if code < 0 else f"status {code}"


def _start(settings: ChildSettings) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, json.dumps(sys.path), json.dumps(settings.as_dict())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    _widen(process.stdout)
    return process


def _widen(pipe: object) -> None:
    """Let a pipe hold a clip rather than 64 kB: fewer switches between the two processes."""
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)  # type: ignore[call-overload]
    except (ImportError, AttributeError, OSError):
        return  # not Linux, or the user's pipes are at their limit: slower, not wrong


def _close(pipe: object) -> None:
    try:
        pipe.close()  # type: ignore[attr-defined]
    except OSError:
        return  # what was still to be written has no reader any more


class _Deadline:
    """Context manager that kills a process when its time is up."""

    def __init__(self, process: "subprocess.Popen[bytes]", seconds: float) -> None:
        self.has_passed = False
        self._process = process
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True

    def __enter__(self) -> "_Deadline":
        self._timer.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()

    def _pass(self) -> None:
        self.has_passed = True
        self._process.kill()
