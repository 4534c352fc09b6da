"""What runs inside a dask worker: opening it once, and working in as many threads as it has."""

import multiprocessing
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Literal

from distributed import Status, Worker, WorkerPlugin, get_worker

from data_manifests import __version__
from pipeline.errors import ConfigError
from pipeline.scheduling.types import OpenWorker


class OpenedWorker(WorkerPlugin):
    """Opens a worker when the first task is near; dask sends it to every worker that joins.

    Args:
        name: of this run, so that several can share a scheduler.
        open_worker: see `run_tasks`.
        shielded: whether signals are left to the parent process, which alone decides what they
            mean; Ctrl-C reaches the whole process group.
    """

    def __init__(self, name: str, open_worker: OpenWorker[Any, Any], *, shielded: bool) -> None:
        self.name = name
        self._version = __version__
        self._open_worker = open_worker
        self._shielded = shielded

    def setup(self, worker: Worker) -> None:
        """Prepare, but open nothing: a worker that joins must be there at once."""
        if __version__ != self._version:
            raise ConfigError(
                f"worker {worker.address} has i2st {__version__}; {self._version} was needed, as "
                "here; start the scheduler and its workers from this environment"
            )
        self._worker_name = str(worker.name)
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._work: Callable[[Any], Any] | None = None
        self._pause_fraction = _pause_never(worker)
        # The default of dask; such a process may not have children, and decoding runs in children.
        multiprocessing.current_process().daemon = False
        if self._shielded:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def teardown(self, worker: Worker) -> None:
        """Close what was opened, and leave the worker as it was."""
        if self._pause_fraction:
            worker.memory_manager.memory_pause_fraction = self._pause_fraction
        self._stack.close()

    def open(self, number: int) -> None:
        """Open the worker, under its own name if that is a number."""
        name = self._worker_name
        with self._lock:
            if self._work is None:
                opened = self._open_worker(int(name) if name.isdecimal() else number)
                self._work = self._stack.enter_context(opened)

    def work(self, task: Any) -> Any:
        """Do one task."""
        assert self._work is not None, "a worker is opened before it is given work"
        return self._work(task)


def _pause_never(worker: Worker) -> float | Literal[False]:
    """Keep a worker at work however full its memory is; returns from what share on it paused.

    A paused worker waits for memory to come free. That of models does not, so the run would wait
    for ever; a worker that is killed for memory is accounted for.
    """
    manager = worker.memory_manager
    before = manager.memory_pause_fraction
    manager.memory_pause_fraction = False
    if worker.status is Status.paused:
        worker.status = Status.running
    return before


def open_here(plugin: str, number: int) -> None:
    """Open the worker that this runs in."""
    _plugin(plugin).open(number)


def work_here(plugin: str, task: Any) -> Any:
    """Do one task in the worker that this runs in."""
    return _plugin(plugin).work(task)


def _plugin(name: str) -> OpenedWorker:
    plugin = get_worker().plugins[name]
    assert isinstance(plugin, OpenedWorker)
    return plugin
