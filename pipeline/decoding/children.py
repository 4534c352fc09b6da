"""The parent's side of decoding: children that can be killed, answers in the order asked for.

A decoder can hang while it holds the interpreter's lock, or crash, on a file of a published dataset.
No thread and no signal helps then, so every video is decoded in a process that can be spared.
Children are started as plain Python processes rather than through multiprocessing: a script needs
no ``if __name__ == "__main__"``, daemonic workers may have them, and nothing is pickled.
"""

import json
import queue
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType

from pipeline.clips import frame_chooser
from pipeline.decoding import DEFAULT_DECODER, get_decoder, read_with
from pipeline.decoding.child import READY, ChildSettings
from pipeline.decoding.types import MAX_PIXELS, DecodedClip
from pipeline.decoding.wire import receive_result, send_path
from pipeline.errors import BackendError, VideoError

_START_SECONDS = 120.0
_CLOSE_SECONDS = 1.0
_ATTEMPTS = 2  # a child may die of something else, so a second one is risked, and no third
_PIPE_BYTES = 1 << 20  # the most that Linux gives an ordinary user
_PREFETCH = 2  # answers per child that may wait for the caller
# The child finds the same modules as this process, wherever it was started.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from pipeline.decoding.child import main; main()"
)


class DecodeChildren:
    """Context manager around a number of decoding processes.

    What comes out does not depend on ``num_children``, except that with 0, which decodes in this
    process, a decoder that hangs hangs and one that crashes takes this process with it.
    """

    def __init__(
        self,
        num_children: int = 1,
        decoder: str = DEFAULT_DECODER,
        frame_rule: str = "segment_centres",
        num_frames: int = 8,
        timeout_seconds: float = 60.0,
        min_decoded_ratio: float = 0.95,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Check the settings; children start with their first video.

        Args:
            num_children: decoding processes; 0 decodes in this one.
            decoder: see `pipeline.decoding.get_decoder`.
            frame_rule: a key of `pipeline.clips.FRAME_RULES`.
            num_frames: F, frames per video.
            timeout_seconds: a child that takes longer over one video is killed.
            min_decoded_ratio: a video is refused where fewer of its expected frames decode.
            max_pixels: largest height x width of a frame.

        Raises:
            BackendError: the decoder is unknown or not installed.
            ConfigError: the frame rule is unknown.
        """
        if num_children < 0:
            raise ValueError(f"num_children={num_children}; at least 0 was needed")
        if not timeout_seconds > 0:
            raise ValueError(f"timeout_seconds={timeout_seconds}; more than 0 was needed")
        self._settings = ChildSettings(
            decoder=decoder,
            frame_rule=frame_rule,
            num_frames=num_frames,
            timeout_seconds=timeout_seconds,
            min_decoded_ratio=min_decoded_ratio,
            max_pixels=max_pixels,
        )
        self._choose = frame_chooser(frame_rule, num_frames)
        self._decoder = get_decoder(decoder, max_pixels=max_pixels)
        self._children = [_Child(self._settings) for _ in range(num_children)]
        self._idle: queue.SimpleQueue[_Child] = queue.SimpleQueue()
        for child in self._children:
            self._idle.put(child)
        self._threads: ThreadPoolExecutor | None = None

    def decoder_version(self) -> str:
        """Versions that decide the pixels, for the fingerprint."""
        return f"{self._decoder.name}: {self._decoder.version()}"

    def __enter__(self) -> "DecodeChildren":
        if self._children:
            self._threads = ThreadPoolExecutor(len(self._children), "i2st-decode")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all children, also those that are busy; safe to call twice."""
        for child in self._children:
            child.retire()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None
        for child in self._children:
            child.end()

    def read_many(self, paths: Sequence[Path]) -> Iterator[DecodedClip | VideoError]:
        """Decode videos, some ahead of the caller, and yield the answers in the order of ``paths``.

        Args:
            paths: video files or folders of frames.

        Returns:
            Iterator of one clip or VideoError per path. At most two answers per child wait in
            memory. Reasons are those of `pipeline.decoding.read_clip`, timeout and crashed.

        Raises:
            BackendError: a child cannot start.
        """
        if not self._children:
            return (self._read_here(path) for path in paths)
        if self._threads is None:
            raise ValueError("read_many needs the children; call it inside `with`")
        return self._read_ahead(self._threads, paths)

    def _read_here(self, path: Path) -> DecodedClip | VideoError:
        settings = self._settings
        try:
            return read_with(
                self._decoder, path, self._choose, settings.min_decoded_ratio, settings.max_pixels
            )
        except VideoError as error:
            return error

    def _read_ahead(
        self, threads: ThreadPoolExecutor, paths: Sequence[Path]
    ) -> Iterator[DecodedClip | VideoError]:
        waiting: deque[Future[DecodedClip | VideoError]] = deque()
        try:
            for path in paths:
                waiting.append(threads.submit(self._read_in_child, path))
                if len(waiting) >= _PREFETCH * len(self._children):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _read_in_child(self, path: Path) -> DecodedClip | VideoError:
        child = self._idle.get()
        try:
            return child.read(path)
        finally:
            self._idle.put(child)


class _Child:
    """One decoding process, started when needed and again after it was lost."""

    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._max_bytes = 3 * settings.max_pixels * settings.num_frames
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
            "crashed",
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
        with self._lock:
            if self._is_retired:
                raise BackendError("decoding was closed while videos were waiting; run again")
            if self._process is not None:
                return self._process
            self._process = process = _start(self._settings)
        with _Deadline(process, _START_SECONDS):
            line = process.stdout.readline()  # type: ignore[union-attr]
        if line != READY and not self._is_retired:
            raise BackendError(
                f"a decoding process of {self._settings.decoder!r} did not start ({self.end()}); "
                "a working installation was needed; see the lines above"
            )
        return process

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
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"


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
