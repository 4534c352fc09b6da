"""A dask cluster of processes on this machine, which listens on 127.0.0.1 only."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

import dask
from distributed import Client, LocalCluster
from distributed.utils import get_mp_context

from pipeline.scheduling.closing import closed_client, closed_cluster, living_processes
from pipeline.scheduling.cluster import START_SECONDS, Cluster
from pipeline.scheduling.where import Where

_FETCH_SECONDS = 5.0


@contextmanager
def local_cluster(where: Where, module: str) -> Iterator[Cluster]:
    """Start ``where.workers`` processes with a thread for every hand.

    Args:
        where: settings.
        module: imported before workers are started, where that makes them start sooner.

    Yields:
        Cluster: The cluster.
    """
    settings = {
        # A daemonic process may not have children, and decoding runs in children.
        "distributed.worker.daemon": False,
        "distributed.worker.multiprocessing-method": _start_method(),
        "distributed.comm.timeouts.connect": f"{START_SECONDS}s",
    }
    with dask.config.set(settings):
        _import_beforehand(module)
        with (
            closed_cluster(_start(where)) as dask_cluster,
            closed_client(
                Client(dask_cluster, set_as_default=False, direct_to_workers=True)
            ) as client,
            # Fetching from a worker that has just died waits this long.
            dask.config.set({"distributed.comm.timeouts.connect": f"{_FETCH_SECONDS}s"}),
            _no_long_farewell(dask_cluster),
        ):
            yield Cluster(
                client=client,
                name=f"{where.workers} local processes",
                patience_seconds=START_SECONDS,
                is_local=True,
                scale=partial(dask_cluster.scale, where.workers),
            )


def _start(where: Where) -> LocalCluster:
    return LocalCluster(
        n_workers=where.workers,
        threads_per_worker=where.hands,
        processes=True,
        # The dashboard and every default address would listen on 0.0.0.0.
        host="127.0.0.1",
        dashboard_address=None,
        # Without a dashboard its port is still taken, 8787 or, with a warning, another.
        scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
        memory_limit=0,
        silence_logs=50,
        # A fork server hands down the variables that it was started with.
        env=dict(os.environ),
    )


@contextmanager
def _no_long_farewell(dask_cluster: LocalCluster) -> Iterator[None]:
    try:
        yield
    except BaseException:
        # Closing politely waits seconds for tasks in hand, which nobody wants any more.
        for process in living_processes(dask_cluster):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        raise


def _start_method() -> str:
    # Forked from a process that has torch imported, a worker is back in 0.1 s instead of 2 s.
    return "forkserver" if sys.platform == "linux" else "spawn"


def _import_beforehand(module: str) -> None:
    """Have the process that workers are forked from import a module, if it can."""
    context = get_mp_context()
    if context.get_start_method() == "forkserver":
        context.set_forkserver_preload(["distributed", module])
