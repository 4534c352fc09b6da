"""What every place to work is given."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Generic, NamedTuple, TypeVar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

OpenWorker = Callable[[int], AbstractContextManager[Callable[[TaskT], ResultT]]]
"""Worker number (0, 1, ...) -> context manager that gives the function from task to result, which
several threads call at once."""


class Remedies(NamedTuple, Generic[TaskT, ResultT]):
    """What to do with a task that kills its workers."""

    split: Callable[[TaskT], Sequence[TaskT]]
    """Smaller tasks that together are the task; one or none if it cannot be made smaller."""
    give_up: Callable[[TaskT], ResultT]
    """The result of a task that cannot be run."""
