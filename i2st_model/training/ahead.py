"""Things made in another thread while the last one is used."""

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def made_ahead(make: Callable[[Item], Made], items: Iterable[Item]) -> Generator[Made, None, None]:
    """Make things in order, one ahead of the one in use.

    Closing the iterator waits for the one that is being made.

    Args:
        make: runs in one thread of its own, never twice at a time.
        items: one for each thing.

    Yields:
        Made: What ``make`` returned; what it raised is raised here.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:
        following: Future[Made] | None = None
        for item in items:
            made, following = following, thread.submit(make, item)
            if made is not None:
                yield made.result()
        if following is not None:
            yield following.result()
