"""Closing clients and clusters: what goes wrong there hides no error, and leaves nothing running.

Dask closes a cluster by asserting what it expects, and gives up halfway where that does not hold:
for one while it is about to replace a worker that died.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from distributed import Client, Nanny, SpecCluster, Status
from distributed.nanny import WorkerProcess
from distributed.process import AsyncProcess

CLOSE_SECONDS = 30.0
"""How long closing may take before it is done by force; dask waits up to 9 s for its workers."""

_JOIN_SECONDS = 10.0

logger = logging.getLogger(__name__)


@contextmanager
def closed_client(client: Client) -> Iterator[Any]:
    """Close a client at the end, whatever comes of it.

    Args:
        client: of any scheduler.

    Yields:
        Any: The client.
    """
    try:
        yield client
    finally:
        try:
            client.close(timeout=CLOSE_SECONDS)
        except Exception:
            logger.debug("a client did not close by itself", exc_info=True)
            client.status = "closed"
            _leave_loop(client)


@contextmanager
def closed_cluster(dask_cluster: Any) -> Iterator[Any]:
    """Close a cluster at the end, by force where dask does not manage.

    Args:
        dask_cluster: a SpecCluster, of processes or jobs.

    Yields:
        Any: The cluster.
    """
    try:
        yield dask_cluster
    finally:
        # A nanny lets go of what it failed to close.
        processes = _worker_processes(dask_cluster)
        try:
            dask_cluster.close(timeout=CLOSE_SECONDS)
        except BaseException as error:
            logger.debug("a cluster did not close by itself", exc_info=True)
            _close_by_force(dask_cluster, processes)
            # A signal, which is no matter of closing.
            if not isinstance(error, Exception):
                raise


def living_processes(dask_cluster: Any) -> list[AsyncProcess]:
    """Worker processes of a cluster on this machine."""
    processes = (one.process for one in _worker_processes(dask_cluster))
    return [process for process in processes if process is not None and process.is_alive()]


def _worker_processes(dask_cluster: Any) -> list[WorkerProcess]:
    """What each nanny has, whether a process lives in it now or not."""
    # At once, as another thread may be adding some.
    workers = [reference() for reference in tuple(dask_cluster._created.data)]
    processes = [worker.process for worker in workers if isinstance(worker, Nanny)]
    return [process for process in processes if process is not None]


def _close_by_force(dask_cluster: Any, processes: list[WorkerProcess]) -> None:
    for end in (_end_workers, _end_cluster):
        try:
            dask_cluster.sync(end, dask_cluster, processes, callback_timeout=CLOSE_SECONDS)
        except Exception:
            logger.debug("a cluster did not close by force", exc_info=True)
    dask_cluster.status = Status.closed
    _leave_loop(dask_cluster)


def _leave_loop(one: Any) -> None:
    """Stop the loop that a client and a cluster share; its thread would live as long as we."""
    with suppress(Exception):
        one._loop_runner.stop()


async def _end_workers(dask_cluster: Any, processes: list[WorkerProcess]) -> None:
    """Close all nannies or jobs, and kill what processes they leave."""
    closes = [worker.close() for worker in dask_cluster._created]
    kills = [_kill(one.process) for one in processes if one.process is not None]
    await asyncio.gather(*kills, *closes, return_exceptions=True)


async def _kill(process: AsyncProcess) -> None:
    # One that is just being started is killed once it is there.
    await asyncio.wait_for(process.kill(), _JOIN_SECONDS)
    await process.join(_JOIN_SECONDS)


async def _end_cluster(dask_cluster: Any, processes: list[WorkerProcess]) -> None:
    """Close what else a cluster has that is without workers; its scheduler in any case."""
    for what in (dask_cluster.workers, dask_cluster.worker_spec, dask_cluster._futures):
        what.clear()
    dask_cluster._correct_state_waiting = None
    dask_cluster.status = Status.running
    try:
        await SpecCluster._close(dask_cluster)
    finally:
        await dask_cluster.scheduler.close()
