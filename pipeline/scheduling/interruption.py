"""SIGTERM and SIGINT: once to finish the shard in hand, twice to stop at once."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""Longest that a first signal waits; clusters send SIGKILL soon after SIGTERM."""


class StopRequest:
    """Context manager that turns signals into a request to stop.

    The first SIGTERM or SIGINT sets `signal_number`, which loops look at between shards; what was
    begun may come to its end first (`finish_first`). A second one, or the end of the grace, raises
    SystemExit with 128 + the signal's number wherever the program is: every file is committed by a
    rename, so nothing half-written becomes visible.
    Handlers are installed in the main thread only; elsewhere signals keep their meaning.
    """

    def __init__(self, grace_seconds: float | None = None) -> None:
        self.signal_number: int | None = None
        self._grace_seconds = GRACE_SECONDS if grace_seconds is None else grace_seconds
        self._timer: threading.Timer | None = None
        self._previous: dict[int, object] = {}
        self._has_begun: Callable[[], bool] = lambda: False

    @property
    def requested(self) -> bool:
        """Whether to stop now: a signal has come, and nothing that was begun is left."""
        return self.signal_number is not None and not self._has_begun()

    def finish_first(self, has_begun: Callable[[], bool]) -> None:
        """Let what was begun come to its end before `requested` holds.

        Args:
            has_begun: says whether any of it is left.
        """
        self._has_begun = has_begun

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number is not None:
            self._has_begun = lambda: False
            logger.warning("stopped; what is finished is kept, the same command goes on from there")
            raise SystemExit(128 + number)
        self.signal_number = number
        logger.warning(
            "stopping: what was begun is finished, for %g s at most; a second signal stops at once",
            self._grace_seconds,
        )
        # The end of the grace is the same event as an impatient user's second signal.
        self._timer = threading.Timer(self._grace_seconds, os.kill, (os.getpid(), number))
        self._timer.daemon = True
        self._timer.start()
