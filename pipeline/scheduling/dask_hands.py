"""Hands of dask workers: which workers there are, what each holds, and what becomes of it.

Every task is pinned to the worker that we chose, so that we know what died with it: what dask
itself does with lost tasks depends on the scheduler's settings, which may not be ours.
"""

import asyncio
import concurrent.futures
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from distributed import Client
from distributed.scheduler import KilledWorker, NoValidWorkerError

from pipeline.errors import ResourceError
from pipeline.scheduling.dask_worker import open_here, work_here
from pipeline.scheduling.evidence import Try

_LOOK_SECONDS = 0.1
_SETTLE_SECONDS = 0.3
_LOST = (
    KilledWorker,
    NoValidWorkerError,
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
)


@dataclass(eq=False, slots=True)
class HeldBy:
    """A dask worker and what it has in hand."""

    address: str
    number: int
    """Among the workers of its host."""
    hands: int
    settled_at: float
    """When it may be used, by time.monotonic()."""
    opened: bool = False
    opening: Any = None
    """The future of its opening, once that was asked for."""
    held: dict[Try[Any], Any] = field(default_factory=dict)
    """Future of every try in hand."""

    def can_take(self, *, alone: bool) -> bool:
        """Whether one more try fits in."""
        if alone or any(one.alone for one in self.held):
            return self.opened and not self.held
        return self.opened and len(self.held) < self.hands


class Outcome(NamedTuple):
    """What became of a try, or of opening a worker where there is no try."""

    worker: HeldBy
    one: Try[Any] | None
    result: Any
    error: BaseException | None

    @property
    def is_loss(self) -> bool:
        """Whether the task itself has not come to an end."""
        return isinstance(self.error, _LOST)


class DaskHands:
    """The hands of all workers of a client's scheduler.

    Args:
        client: of the scheduler.
        plugin: name of the `OpenedWorker` that the workers have.
        hands: tasks that a worker may have in hand, if it has as many threads.
    """

    def __init__(self, client: Client, plugin: str, *, hands: int) -> None:
        self.workers: dict[str, HeldBy] = {}
        self._client = client
        self._plugin = plugin
        self._address = client.scheduler.address
        self._hands = hands
        self._outcomes: SimpleQueue[Outcome] = SimpleQueue()
        self._looked_at = 0.0

    @property
    def num_held(self) -> int:
        """Tries in hand."""
        return sum(len(worker.held) for worker in self.workers.values())

    def open_workers(self) -> None:
        """Have every worker opened that was not asked to yet."""
        now = time.monotonic()
        for worker in self.workers.values():
            if worker.opening is None and now >= worker.settled_at:
                call = partial(open_here, self._plugin, worker.number)
                worker.opening = self._submit(worker, None, call)

    def free_worker(self, *, alone: bool) -> HeldBy | None:
        """The worker with the least in hand that can take one more try."""
        free = (worker for worker in self.workers.values() if worker.can_take(alone=alone))
        return min(free, key=lambda worker: len(worker.held), default=None)

    def give(self, worker: HeldBy, one: Try[Any]) -> None:
        """Have a worker do one try."""
        worker.held[one] = self._submit(worker, one, partial(work_here, self._plugin, one.task))

    def look(self) -> list[HeldBy]:
        """Look which workers there are, at most every 0.1 s.

        Returns:
            Those that are gone, with what they had in hand.

        Raises:
            ResourceError: the scheduler is gone.
        """
        if time.monotonic() < self._looked_at + _LOOK_SECONDS:
            return []
        try:
            there = self._client.nthreads()
        except OSError as error:
            raise self._gone(error) from error
        # Dask does not replace a worker that dies within milliseconds of joining.
        settled_at = time.monotonic() + _SETTLE_SECONDS if self._looked_at else 0.0
        self._looked_at = time.monotonic()
        gone = [worker for address, worker in self.workers.items() if address not in there]
        for worker in gone:
            self.forget(worker)
        for address in sorted(set(there) - set(self.workers)):
            hands = min(self._hands, there[address])
            number = self._free_number(address)
            self.workers[address] = HeldBy(address, number, hands, settled_at)
        return gone

    def forget(self, worker: HeldBy) -> None:
        """Part with a worker; if it is there after all, it is met again as a new one."""
        del self.workers[worker.address]
        with suppress(OSError):
            self._client.cancel([worker.opening, *worker.held.values()])

    def next_outcome(self) -> Outcome | None:
        """What came to an end next; None if nothing does for a while."""
        try:
            outcome = self._outcomes.get(timeout=_LOOK_SECONDS)
        except Empty:
            return None
        worker = outcome.worker
        if self.workers.get(worker.address) is not worker:
            return None
        if outcome.one is None:
            worker.opened = outcome.error is None
        elif not outcome.is_loss:
            del worker.held[outcome.one]
        return outcome

    def _submit(self, worker: HeldBy, one: Try[Any] | None, call: Any) -> Any:
        future = self._client.submit(call, workers=[worker.address], pure=False)
        # One thread per future: fetching from a worker that just died blocks for seconds.
        waiter = threading.Thread(target=self._wait, args=(worker, one, future), daemon=True)
        waiter.start()
        return future

    def _wait(self, worker: HeldBy, one: Try[Any] | None, future: Any) -> None:
        try:
            outcome = Outcome(worker, one, future.result(), None)
        except BaseException as error:
            # A result that is there could not be fetched, rather than a task that failed.
            unreachable = isinstance(error, OSError) and future.status != "error"
            outcome = Outcome(worker, one, None, self._gone(error) if unreachable else error)
        self._outcomes.put(outcome)

    def _gone(self, error: BaseException) -> ResourceError:
        return ResourceError(
            f"the scheduler at {self._address} is gone ({error}); it was needed until the end; "
            "start it and run the same command again, what is finished is kept"
        )

    def _free_number(self, address: str) -> int:
        """Lowest number that no worker of the same host has."""
        host = urlsplit(address).hostname
        taken = {w.number for w in self.workers.values() if urlsplit(w.address).hostname == host}
        return next(number for number in range(len(taken) + 1) if number not in taken)
