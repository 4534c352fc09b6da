"""Which tasks are left, and which of them the death of a worker is laid to.

All tasks in a dead worker's hands are suspects, as nobody saw which one it was. A task that dies
with its worker too often is split, and its parts run alone, where there is no other suspect. Even
there something else may kill, so a part is judged by how others fare:

- Between its tries others come to their end, for as long as any are left.
- It is given up only when all that died before is accounted for: finished since, or accused too.
- Where workers were lost to nobody, since all that they held was finished later, it may lose as
  many more as make chance unlikely.
"""

from collections import deque
from collections.abc import Iterable
from typing import Generic

from pipeline.errors import ResourceError
from pipeline.scheduling.evidence import Evidence, Try
from pipeline.scheduling.types import Remedies, ResultT, TaskT

LOSSES_TOGETHER = 2
"""Workers that a task may lose beside others before it is split and its parts run alone."""

MOST_FATAL = 3
"""Tasks that may prove fatal with nothing finished between; of more the machine is to blame."""

_MOST_REST = 16


class TaskBook(Generic[TaskT, ResultT]):
    """Tasks that are left, read as they are taken."""

    def __init__(self, tasks: Iterable[TaskT], remedies: Remedies[TaskT, ResultT]) -> None:
        self._fresh = (Try(task) for task in tasks)
        self._lost: deque[Try[TaskT]] = deque()
        self._suspects: list[Try[TaskT]] = []
        self._accused: list[Try[TaskT]] = []
        self._remedies = remedies
        self._evidence = Evidence()
        self._num_finished = 0
        self._num_out = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left to take, unless what is in hands now changes that."""
        return not self._suspects and not self._has_others()

    @property
    def next_is_alone(self) -> bool:
        """Whether the next try must have a worker for itself."""
        return self._next_suspect() is not None

    def take(self) -> Try[TaskT]:
        """The next try; the book must not be empty."""
        one = self._next_suspect()
        if one is None:
            one = self._lost.popleft() if self._lost else next(self._fresh)
        else:
            self._suspects.remove(one)
        self._num_out += 1
        return one

    def finished(self, one: Try[TaskT]) -> list[ResultT]:
        """Note that a try came to its end.

        Args:
            one: the try.

        Returns:
            Results of others, if any are given up now.
        """
        self._num_out -= 1
        self._num_finished += 1
        self._evidence.finished(one)
        return self._judge()

    def died(self, tries: Iterable[Try[TaskT]]) -> list[ResultT]:
        """Note that a worker died.

        Args:
            tries: what it had in its hands.

        Returns:
            Results of those that are given up now; the others are to be taken again.

        Raises:
            ResourceError: more died in a row than can be fatal.
        """
        held = list(tries)
        self._num_out -= len(held)
        self._evidence.died(held)
        self._check_machine()
        for one in held:
            self._put_back(one)
        # Before something is finished, it may be the machine.
        return self._judge() if self._is_over() else []

    def _has_others(self) -> bool:
        """Whether something is left to take that need not be alone."""
        if not self._lost:
            self._lost.extend(filter(None, (next(self._fresh, None),)))
        return bool(self._lost)

    def _is_over(self) -> bool:
        return not self._num_out and self.is_empty

    def _next_suspect(self) -> Try[TaskT] | None:
        rested = (one for one in self._suspects if one.rests_until <= self._num_finished)
        one = next(rested, None)
        if one is None and self._suspects and not self._has_others():
            # Not in turn, where what strikes every other time would meet the same one again.
            return max(self._suspects, key=lambda one: one.num_losses)
        return one

    def _put_back(self, one: Try[TaskT]) -> None:
        if not one.alone and one.num_losses < LOSSES_TOGETHER:
            self._lost.append(one)
        elif not self._split(one):
            self._accuse(one)

    def _split(self, one: Try[TaskT]) -> bool:
        """Have its parts, or at least itself, run alone; False if that has been done."""
        parts = self._remedies.split(one.task)
        if len(parts) < 2:
            if one.alone:
                return False
            parts = [one.task]
        tries = [Try(part, alone=True) for part in parts]
        self._evidence.was_split(one, tries)
        self._suspects.extend(tries)
        return True

    def _accuse(self, one: Try[TaskT]) -> None:
        """Have it judged if it lost enough workers, else run again when others had their turn."""
        if one.num_losses >= self._evidence.most_losses_alone():
            self._accused.append(one)
            return
        one.rests_until = self._num_finished + min(2 ** (1 + one.num_losses), _MOST_REST)
        self._suspects.append(one)

    def _judge(self) -> list[ResultT]:
        """Results of those that are given up; what came to light since may ask for more losses."""
        results = []
        for one in list(self._accused):
            if one.num_losses < self._evidence.most_losses_alone():
                self._accused.remove(one)
                self._accuse(one)
            elif self._is_over() or self._evidence.is_settled(one, self._accused):
                self._accused.remove(one)
                self._evidence.was_given_up(one)
                results.append(self._remedies.give_up(one.task))
        return results

    def _check_machine(self) -> None:
        num_dead = self._evidence.num_in_a_row
        if num_dead > MOST_FATAL * (LOSSES_TOGETHER + self._evidence.most_losses_alone()):
            raise ResourceError(
                f"{num_dead} workers in a row died with nothing finished between, most likely for "
                "memory; room for one task was needed; free memory, or lower the batch, and run "
                "the same command again, what is finished is kept"
            )
