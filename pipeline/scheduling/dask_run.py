"""Tasks onto the workers of a dask cluster, until every one is done or given up."""

import time
from collections.abc import Iterable, Iterator
from typing import Generic

from pipeline.errors import ConfigError, I2STError, ResourceError
from pipeline.scheduling.blame import TaskBook
from pipeline.scheduling.cluster import Cluster
from pipeline.scheduling.clusters import open_cluster
from pipeline.scheduling.dask_hands import DaskHands, HeldBy, Outcome
from pipeline.scheduling.dask_worker import OpenedWorker
from pipeline.scheduling.interruption import StopRequest
from pipeline.scheduling.types import OpenWorker, Remedies, ResultT, TaskT
from pipeline.scheduling.where import Where

LOST_OPENINGS = 8
"""Workers that may die in a row while they are opened, with none opened between."""


def run_on_dask(
    tasks: Iterable[TaskT],
    open_worker: OpenWorker[TaskT, ResultT],
    *,
    where: Where,
    stop: StopRequest,
    remedies: Remedies[TaskT, ResultT],
) -> Iterator[ResultT]:
    """Run tasks on the cluster that ``where`` names; see `run_tasks`."""
    book = TaskBook(tasks, remedies)
    if book.is_empty:
        return
    with open_cluster(where, open_worker) as cluster:
        name = cluster.plugin
        try:
            _introduce(cluster, OpenedWorker(name, open_worker, shielded=cluster.is_local))
            hands = DaskHands(cluster.client, name, hands=where.hands)
            yield from _Run(cluster, book, hands, stop)
        finally:
            cluster.leave()


def _introduce(cluster: Cluster, plugin: OpenedWorker) -> None:
    """Give the plugin to every worker there is and will be."""
    try:
        cluster.client.register_plugin(plugin, name=plugin.name)
    except (I2STError, OSError):
        raise
    except Exception as error:
        # What a worker cannot unpickle comes back as a plain Exception.
        raise ConfigError(
            f"workers of {cluster.name} lack what is to run there ({error}); i2st was needed, as "
            "here; start the scheduler and its workers from this environment"
        ) from error


class _Run(Generic[TaskT, ResultT]):
    """One run over an open cluster: iterates over the results."""

    def __init__(
        self,
        cluster: Cluster,
        book: TaskBook[TaskT, ResultT],
        hands: DaskHands,
        stop: StopRequest,
    ) -> None:
        self._cluster = cluster
        self._book = book
        self._hands = hands
        self._stop = stop
        self._num_lost_openings = 0
        self._last_worker_at = time.monotonic()

    def __iter__(self) -> Iterator[ResultT]:
        while True:
            yield from self._bury(self._hands.look())
            self._fill()
            if not self._hands.num_held and (self._stop.requested or self._book.is_empty):
                return
            outcome = self._hands.next_outcome()
            if outcome is None:
                self._check_workers()
            else:
                yield from self._take(outcome)

    def _fill(self) -> None:
        """Give tries to free hands."""
        if self._stop.requested or self._book.is_empty:
            return
        self._hands.open_workers()
        while not self._book.is_empty:
            worker = self._hands.free_worker(alone=self._book.next_is_alone)
            if worker is None:
                return
            self._hands.give(worker, self._book.take())

    def _take(self, outcome: Outcome) -> Iterator[ResultT]:
        if outcome.is_loss:
            self._hands.forget(outcome.worker)
            yield from self._bury([outcome.worker])
        elif outcome.error is not None:
            raise outcome.error
        elif outcome.one is None:
            self._num_lost_openings = 0
        else:
            given_up = self._book.finished(outcome.one)
            self._fill()
            yield outcome.result
            yield from given_up

    def _bury(self, gone: Iterable[HeldBy]) -> Iterator[ResultT]:
        """Account for workers that are gone; gives the results of tries that are given up."""
        for worker in gone:
            if worker.held:
                yield from self._book.died(worker.held)
            elif worker.opening is not None and not worker.opened:
                self._num_lost_openings += 1
        if self._num_lost_openings >= LOST_OPENINGS:
            raise ResourceError(
                f"{self._num_lost_openings} workers in a row died while they loaded their models, "
                "most likely for memory; room for every worker's models was needed; free memory or "
                "pass fewer --workers"
            )

    def _check_workers(self) -> None:
        """Have lost workers replaced; raise if there has been none for long."""
        self._cluster.restore()
        if self._hands.workers:
            self._last_worker_at = time.monotonic()
        elif time.monotonic() > self._last_worker_at + self._cluster.patience_seconds:
            raise ResourceError(
                f"no worker for {self._cluster.patience_seconds:.0f} s at {self._cluster.name}; at "
                "least 1 was needed; start workers and run the same command again, what is "
                "finished is kept"
            )
