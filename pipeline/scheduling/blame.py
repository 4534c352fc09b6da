"""Which tasks are left, and which of them the death of a worker is laid to.

All tasks in a dead worker's hands are suspects, as nobody saw which one it was. A task that dies
with its worker too often is run alone, where there is no other suspect.
"""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Generic

from pipeline.errors import ResourceError
from pipeline.scheduling.types import Remedies, ResultT, TaskT

LOSSES_TOGETHER = 3
"""Workers that a task may lose beside others before it is split and its parts run alone."""

LOSSES_ALONE = 4
"""Workers that a part may lose while alone before it is given up. With 2 and with 3, a part was
once given up for a killer from outside that struck every half second."""

GIVEN_UP_IN_A_ROW = 3
"""Parts given up, with nothing finished between, after which the machine is to blame."""

_RECENT_SECONDS = 60.0


@dataclass(eq=False, slots=True)
class Try(Generic[TaskT]):
    """A task on its way through workers."""

    task: TaskT
    alone: bool = False
    num_losses: int = 0
    """Workers lost since it runs as it does now, together or alone."""
    deaths: list["_Death"] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Death:
    at: float
    """time.monotonic(), seconds."""
    suspects: set[Try[Any]]
    """What the worker had in hand and has not been finished since."""


class TaskBook(Generic[TaskT, ResultT]):
    """Tasks that are left, read as they are taken."""

    def __init__(self, tasks: Iterable[TaskT], remedies: Remedies[TaskT, ResultT]) -> None:
        self._fresh = (Try(task) for task in tasks)
        self._lost: deque[Try[TaskT]] = deque()
        self._suspects: deque[Try[TaskT]] = deque()
        self._remedies = remedies
        self._unexplained: deque[float] = deque()
        self._num_given_up_in_a_row = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to take."""
        if not self._suspects and not self._lost:
            self._lost.extend(filter(None, (next(self._fresh, None),)))
        return not self._suspects and not self._lost

    @property
    def next_is_alone(self) -> bool:
        """Whether the next try must have a worker for itself."""
        return bool(self._suspects)

    def take(self) -> Try[TaskT]:
        """The next try; the book must not be empty."""
        return next(chain(_drawn(self._suspects), _drawn(self._lost), self._fresh))

    def finished(self, one: Try[TaskT]) -> None:
        """Note that a try came to its end, and so killed none of the workers it had."""
        self._num_given_up_in_a_row = 0
        for death in one.deaths:
            death.suspects.discard(one)
            if not death.suspects:
                self._unexplained.append(death.at)

    def died(self, tries: Iterable[Try[TaskT]]) -> list[ResultT]:
        """Note that a worker died.

        Args:
            tries: what it had in its hands.

        Returns:
            Results of those that were given up; the others are to be taken again.

        Raises:
            ResourceError: too many were given up in a row.
        """
        held = list(tries)
        death = _Death(time.monotonic(), set(held))
        results = []
        for one in held:
            one.deaths.append(death)
            one.num_losses += 1
            if one.num_losses < self._most_losses(one):
                (self._suspects if one.alone else self._lost).append(one)
            elif not self._split(one):
                results.append(self._give_up(one))
        return results

    def _most_losses(self, one: Try[TaskT]) -> int:
        if not one.alone:
            return LOSSES_TOGETHER
        # Where workers die of something else, their deaths prove less.
        since = time.monotonic() - _RECENT_SECONDS
        return LOSSES_ALONE + sum(at > since for at in self._unexplained)

    def _split(self, one: Try[TaskT]) -> bool:
        """Have its parts, or at least itself, run alone; False if that has been done."""
        parts = self._remedies.split(one.task)
        if len(parts) < 2:
            if one.alone:
                return False
            parts = [one.task]
        tries = [Try(part, alone=True, deaths=list(one.deaths)) for part in parts]
        for death in one.deaths:
            death.suspects.discard(one)
            death.suspects.update(tries)
        self._suspects.extend(tries)
        return True

    def _give_up(self, one: Try[TaskT]) -> ResultT:
        self._num_given_up_in_a_row += 1
        if self._num_given_up_in_a_row == GIVEN_UP_IN_A_ROW:
            raise ResourceError(
                f"{GIVEN_UP_IN_A_ROW} tasks in a row killed {LOSSES_ALONE} workers each, alone, "
                "most likely for memory; room for one task was needed; free memory, or lower the "
                "batch, and run the same command again, what is finished is kept"
            )
        return self._remedies.give_up(one.task)


def _drawn(tries: deque[Try[TaskT]]) -> Iterable[Try[TaskT]]:
    while tries:
        yield tries.popleft()
