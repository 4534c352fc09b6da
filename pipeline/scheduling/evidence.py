"""What the deaths of workers prove against the tasks that they had in hand."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic

from pipeline.scheduling.types import TaskT

LOSSES_ALONE = 5
"""Workers that a task may lose while alone, unless something else kills."""

MOST_LOSSES_ALONE = 40
"""Workers that a task may lose while alone, whatever else kills; 1e-6 where 7 of 10 die."""

CHANCE = 1e-6
"""That something else killed all of them, below which it was the task."""

_LATELY = 200


@dataclass(eq=False, slots=True)
class Try(Generic[TaskT]):
    """A task on its way through workers."""

    task: TaskT
    alone: bool = False
    num_losses: int = 0
    """Workers lost since it runs as it does now, together or alone."""
    deaths: list["Death"] = field(default_factory=list)
    rests_until: int = 0
    """Number of finished tries before which others go first."""


@dataclass(eq=False, slots=True)
class Death:
    """That of one worker."""

    number: int
    num_held: int
    """Tries that it had in hand."""
    suspects: set[Try[Any]]
    """Of them, those that have not been finished since."""


class Evidence:
    """All deaths of a run, and which of them may yet prove to be nobody's."""

    def __init__(self) -> None:
        self.num_in_a_row = 0
        """Deaths with nothing finished since."""
        self._num_deaths = 0
        # In order; without those that are laid to somebody, or to nobody, for good.
        self._open: dict[Death, None] = {}
        # Of tries that were finished: True for a worker that they lost, False for their end.
        self._lately: deque[bool] = deque(maxlen=_LATELY)

    def died(self, tries: Iterable[Try[Any]]) -> None:
        """Note that a worker died with these in its hands."""
        held = set(tries)
        self.num_in_a_row += 1
        self._num_deaths += 1
        death = Death(self._num_deaths, len(held), held)
        self._open[death] = None
        for one in held:
            one.deaths.append(death)
            one.num_losses += 1

    def finished(self, one: Try[Any]) -> None:
        """Note that a try came to its end, and so killed none of the workers it had."""
        self.num_in_a_row = 0
        self._lately.append(False)
        for death in one.deaths:
            death.suspects.discard(one)
            if not death.suspects:
                self._open.pop(death, None)
                self._lately.extend([True] * death.num_held)

    def was_split(self, one: Try[Any], parts: Sequence[Try[Any]]) -> None:
        """Have the parts of a try be suspects in its place."""
        for death in one.deaths:
            death.suspects.discard(one)
            death.suspects.update(parts)
        for part in parts:
            part.deaths = list(one.deaths)

    def was_given_up(self, one: Try[Any]) -> None:
        """Lay its deaths to a try."""
        for death in one.deaths:
            self._open.pop(death, None)

    def most_losses_alone(self) -> int:
        """Workers that a task may lose while alone.

        As many as an innocent one hardly loses in a row, by Laplace's rule of succession over what
        tries lost lately that were finished in the end.
        """
        num_lost, num_lately = sum(self._lately), len(self._lately)
        chance, number = 1.0, 0
        while num_lost and chance > CHANCE and number < MOST_LOSSES_ALONE:
            chance *= (num_lost + 1 + number) / (num_lately + 2 + number)
            number += 1
        return max(LOSSES_ALONE, number)

    def is_settled(self, one: Try[Any], accused: Collection[Try[Any]]) -> bool:
        """Whether no death before a try's last may yet prove to be nobody's.

        Args:
            one: the try.
            accused: tries that deaths are laid to for now.

        Returns:
            Whether all earlier ones are accounted for.
        """
        last = one.deaths[-1].number
        return not any(
            death.number < last and death.suspects.isdisjoint(accused) for death in self._open
        )
