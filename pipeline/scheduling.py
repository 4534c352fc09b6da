"""Where work runs: in this process, or in local processes through dask, with the same results.

A worker is opened once per process (models are built there) and then called once per task. Only
plain data travels: a picklable function that opens the worker, tasks, and small results.
"""

import atexit
import multiprocessing
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

from pipeline.errors import ResourceError
from pipeline.extraction.interruption import StopRequest

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

OpenWorker = Callable[[int], AbstractContextManager[Callable[[TaskT], ResultT]]]
"""Worker number (0, 1, ...) -> context manager that gives the function from task to result."""

ALLOWED_FAILURES = 3
"""Workers one task may lose before it is given up; 0 was measured to fail innocent tasks too."""

_START_SECONDS = 120.0
_POLL_SECONDS = 0.02


def run_tasks(
    tasks: Sequence[TaskT],
    open_worker: OpenWorker[TaskT, ResultT],
    *,
    workers: int,
    stop: StopRequest | None = None,
) -> Iterator[ResultT]:
    """Run every task once, wherever it is to run.

    Args:
        tasks: picklable values; each must be safe to run twice, as a killed worker's task is.
        open_worker: opens a worker in its process; picklable where ``workers`` > 0.
        workers: 0 runs in this process and opens no socket; N starts N processes that listen on
            127.0.0.1 only.
        stop: looked at between tasks; once requested, no further task starts.

    Returns:
        Iterator over the results as tasks finish; nothing runs until it is read.

    Raises:
        ResourceError: one task killed its worker process more than `ALLOWED_FAILURES` times; all
            other tasks were run.
        Exception: whatever a task or ``open_worker`` raises; no further task starts.
    """
    stop = stop or StopRequest()
    if workers == 0 or not tasks:
        return _run_here(tasks, open_worker, stop)
    return _run_in_processes(tasks, open_worker, min(workers, len(tasks)), stop)


def _run_here(
    tasks: Sequence[TaskT], open_worker: OpenWorker[TaskT, ResultT], stop: StopRequest
) -> Iterator[ResultT]:
    if not tasks:
        return
    with open_worker(0) as work:
        for task in tasks:
            if stop.requested:
                return
            yield work(task)


def _run_in_processes(
    tasks: Sequence[TaskT],
    open_worker: OpenWorker[TaskT, ResultT],
    workers: int,
    stop: StopRequest,
) -> Iterator[ResultT]:
    suspects: list[int] = []
    guilty: list[int] = []
    with _local_cluster(workers) as client:
        # Sent to every worker that starts, also in place of a killed one; tasks stay small.
        client.register_worker_callbacks(setup=partial(_set_up_worker, open_worker))
        yield from _run_numbered(client, tasks, range(len(tasks)), workers, stop, suspects)
        # Dask blames every task that a dead worker held; alone, only the guilty one is to blame.
        yield from _run_numbered(client, tasks, suspects, 1, stop, guilty)
        client.run(_close_worker)
    if guilty:
        raise ResourceError(
            f"{len(guilty)} of {len(tasks)} tasks killed their worker process "
            f"{ALLOWED_FAILURES + 1} times each, alone (first: task {guilty[0]}), most likely for "
            "memory; every other task is complete; free memory and run again"
        )


def _run_numbered(
    client: Any,
    tasks: Sequence[Any],
    numbers: Sequence[int],
    num_at_once: int,
    stop: StopRequest,
    lost: list[int],
) -> Iterator[Any]:
    """Run ``tasks[number]`` for every number; those whose workers died are added to ``lost``."""
    waiting = deque(numbers)
    running: dict[Any, int] = {}
    while running or (waiting and not stop.requested):
        # No more than the workers have hands for, so that a stop has little to wait for.
        while waiting and len(running) < num_at_once and not stop.requested:
            number = waiting.popleft()
            running[client.submit(_run_task, tasks[number], pure=False)] = number
        for future in _finished(running):
            number = running.pop(future)
            if _killed_its_worker(future):
                lost.append(number)
            else:
                yield future.result()


@contextmanager
def _local_cluster(workers: int) -> Iterator[Any]:
    import dask
    from distributed import Client, LocalCluster

    settings = {
        "distributed.scheduler.allowed-failures": ALLOWED_FAILURES,
        # A daemonic process may not have children, and decoding runs in children.
        "distributed.worker.daemon": False,
        "distributed.comm.timeouts.connect": f"{_START_SECONDS}s",
    }
    with (
        dask.config.set(settings),
        # The dashboard and every default address would listen on 0.0.0.0.
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            memory_limit=0,
            silence_logs=50,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        client.wait_for_workers(workers, timeout=_START_SECONDS)
        try:
            yield client
        except BaseException:
            # Closing politely waits seconds for the tasks in hand, which nobody wants any more.
            for process in multiprocessing.active_children():
                if process.name.startswith("Dask Worker"):
                    process.kill()
            raise


def _finished(running: dict[Any, int]) -> list[Any]:
    """Futures that are done, in order of submission; empty after a short wait."""
    done = [future for future in running if future.done()]
    if not done:
        time.sleep(_POLL_SECONDS)
    return done


def _killed_its_worker(future: Any) -> bool:
    from distributed.scheduler import KilledWorker

    return future.status == "error" and isinstance(future.exception(), KilledWorker)


# What follows runs in the worker processes.

_open: Callable[[], AbstractContextManager[Callable[[Any], Any]]] | None = None
_opened: tuple[ExitStack, Callable[[Any], Any]] | None = None


def _set_up_worker(open_worker: OpenWorker[TaskT, ResultT], dask_worker: Any) -> None:
    global _open
    _open = partial(open_worker, int(dask_worker.name))
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run_task(task: Any) -> Any:
    global _opened
    if _opened is None:
        # With the first task, not before: what opening raises then reaches the caller.
        assert _open is not None
        stack = ExitStack()
        _opened = stack, stack.enter_context(_open())
        atexit.register(stack.close)
    return _opened[1](task)


def _close_worker() -> None:
    if _opened is not None:
        _opened[0].close()
