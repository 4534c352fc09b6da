"""Work in threads of this process, which can be left behind."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from pipeline.scheduling.interruption import StopRequest
from pipeline.scheduling.types import OpenWorker, ResultT, TaskT

_NOTHING: Any = object()

# A signal that comes just before the main thread begins to wait is seen when the wait is over.
_NAP_SECONDS = 0.2


def run_in_threads(
    tasks: Iterable[TaskT],
    open_worker: OpenWorker[TaskT, ResultT],
    *,
    hands: int,
    stop: StopRequest,
) -> Iterator[ResultT]:
    """Run tasks in ``hands`` threads over one open worker; see `run_tasks`."""
    unread = iter(tasks)
    task = next(unread, _NOTHING)
    if task is _NOTHING:
        return
    with ExitStack() as stack:
        work = stack.enter_context(open_worker(0))
        pool = stack.enter_context(_Hands(work, hands, stop))
        while True:
            # Before a result is handed out, so that no hand rests while the caller is busy.
            while task is not _NOTHING and pool.num_busy < hands and not stop.requested:
                pool.give(task)
                task = next(unread, _NOTHING)
            if not pool.num_busy:
                return
            yield pool.take()


class _Hands:
    """Context manager: daemonic threads; waits for them, unless the process is told to end."""

    def __init__(self, work: Callable[[Any], Any], num: int, stop: StopRequest) -> None:
        self.num_busy = 0
        self._work = work
        self._stop = stop
        self._todo: SimpleQueue[Any] = SimpleQueue()
        self._done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._threads = [_Hand(target=self._serve, daemon=True) for _ in range(num)]

    def __enter__(self) -> "_Hands":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _Hand.stop = self._stop
        for _ in self._threads:
            self._todo.put(_NOTHING)
        if kind is None or issubclass(kind, Exception) or not self._is_told_to_end(kind):
            for thread in self._threads:
                while thread.is_alive():
                    thread.join(_NAP_SECONDS)

    def give(self, task: Any) -> None:
        """Have a free hand do a task."""
        self.num_busy += 1
        self._todo.put(task)

    def take(self) -> Any:
        """The next result; raises what its task raised."""
        while True:
            with suppress(Empty):
                result, error = self._done.get(timeout=_NAP_SECONDS)
                break
        self.num_busy -= 1
        if error is not None:
            raise error
        return result

    def _is_told_to_end(self, kind: type[BaseException]) -> bool:
        # A caller that a second signal throws out of its loop closes the generator.
        return kind is not GeneratorExit or self._stop.requested

    def _serve(self) -> None:
        while (task := self._todo.get()) is not _NOTHING:
            try:
                self._done.put((self._work(task), None))
            except BaseException as error:
                self._done.put((None, error))


class _Hand(threading.Thread):
    """A thread that may still work when the process ends."""

    stop: StopRequest | None = None


@atexit.register
def _leave_hands_behind() -> None:
    # A thread that comes back from C++ into an interpreter that is being torn down aborts it.
    if any(isinstance(thread, _Hand) for thread in threading.enumerate()) and _Hand.stop:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + (_Hand.stop.signal_number or signal.SIGINT))
