"""Dask clusters, opened for one run and left again; none listens beyond 127.0.0.1 without TLS."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dask
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

from pipeline.scheduling.types import OpenWorker
from pipeline.scheduling.where import Where

_START_SECONDS = 120.0
_FETCH_SECONDS = 5.0
_RESTORE_SECONDS = 1.0


@dataclass(kw_only=True, slots=True)
class Cluster:
    """A client of a cluster, and how to treat it."""

    client: Client
    name: str
    """As the user knows it."""
    is_local: bool = False
    """Whether its workers are child processes of this one."""
    patience_seconds: float = _START_SECONDS
    """How long there may be no worker."""
    scale: Callable[[], Any] = lambda: None
    """Replaces workers that are gone for good."""
    _restored_at: float = field(default_factory=time.monotonic)

    def restore(self) -> None:
        """Replace workers that are gone for good, at most every second."""
        if time.monotonic() > self._restored_at + _RESTORE_SECONDS:
            self._restored_at = time.monotonic()
            self.scale()

    def leave(self, plugin: str) -> None:
        """Close what was opened in workers that live on."""
        if not self.is_local:
            self.client.unregister_worker_plugin(plugin)


@contextmanager
def open_cluster(where: Where, open_worker: OpenWorker[Any, Any]) -> Iterator[Cluster]:
    """Open the cluster that the settings name.

    Args:
        where: its place; not this process.
        open_worker: what will run there.

    Returns:
        Context manager; gives the cluster, and closes what it started.
    """
    with _local_cluster(where, _module_of(open_worker)) as cluster:
        yield cluster


@contextmanager
def _local_cluster(where: Where, module: str) -> Iterator[Cluster]:
    settings = {
        # A daemonic process may not have children, and decoding runs in children.
        "distributed.worker.daemon": False,
        "distributed.worker.multiprocessing-method": _start_method(),
        "distributed.comm.timeouts.connect": f"{_START_SECONDS}s",
    }
    with dask.config.set(settings):
        _import_beforehand(module)
        with (
            # The dashboard and every default address would listen on 0.0.0.0.
            LocalCluster(
                n_workers=where.workers,
                threads_per_worker=where.hands,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                memory_limit=0,
                silence_logs=50,
                # A fork server hands down the variables that it was started with.
                env=dict(os.environ),
            ) as dask_cluster,
            Client(dask_cluster, set_as_default=False, direct_to_workers=True) as client,
            # Fetching from a worker that has just died waits this long.
            dask.config.set({"distributed.comm.timeouts.connect": f"{_FETCH_SECONDS}s"}),
        ):
            try:
                yield Cluster(
                    client=client,
                    name=f"{where.workers} local workers",
                    is_local=True,
                    scale=partial(dask_cluster.scale, where.workers),
                )
            except BaseException:
                # Closing politely waits seconds for tasks in hand, which nobody wants any more.
                for process in multiprocessing.active_children():
                    if process.name.startswith("Dask Worker"):
                        process.kill()
                raise


def _start_method() -> str:
    # Forked from a process that has torch imported, a worker is back in 0.1 s instead of 2 s.
    return "forkserver" if sys.platform == "linux" else "spawn"


def _import_beforehand(module: str) -> None:
    """Have the process that workers are forked from import a module, if it can."""
    context = get_mp_context()
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["distributed", module])


def _module_of(open_worker: Any) -> str:
    while isinstance(open_worker, partial):
        open_worker = open_worker.func
    return str(open_worker.__module__)
