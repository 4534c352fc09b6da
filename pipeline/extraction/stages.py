"""How long a hand spends in each stage of its work."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

HAND_STAGES = ("decode", "segment", "encode")
"""In the order of the work; encode is the JPEG writer where frames are stored."""
STAGES = (*HAND_STAGES, "write")


class StageClock:
    """Adds up the seconds of each stage, with the time a hand waits for its turn there."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time one stage."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - begin
