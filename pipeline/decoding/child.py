"""The child's side of decoding: read a path, answer with frames, end when the parent does.

The child is a plain Python process that imports numpy and one decoder, so that it starts fast. It
ends by itself whatever happens to the parent: a thread notices the closed pipe even while a video
decodes, and a kernel timer ends a decoder that holds the interpreter's lock forever.
"""

import os
import queue
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.clips import BASE_PHASE, frame_chooser
from pipeline.decoding import get_decoder, read_with
from pipeline.decoding.types import DecodedClip
from pipeline.decoding.wire import receive_path, send_result
from pipeline.errors import VideoError

READY = b"ready\n"
_GRACE_SECONDS = 2.0  # the parent's own timeout comes first, with the better message


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildSettings:
    """What decides a child's answers."""

    decoder: str
    frame_rule: str
    num_frames: int
    timeout_seconds: float
    min_decoded_ratio: float
    max_pixels: int
    phases: Sequence[float] = (BASE_PHASE,)

    @property
    def num_indices(self) -> int:
        """Frames of one answer: those of every phase."""
        return self.num_frames * len(self.phases)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the child's command line."""
        return asdict(self)


def serve(settings: ChildSettings) -> None:
    """Answer requests from standard input on standard output until the input is closed."""
    requests, answers = _take_pipes()
    _leave_signals_to_the_parent()
    decoder = get_decoder(settings.decoder, max_pixels=settings.max_pixels)
    choose = frame_chooser(settings.frame_rule, settings.num_frames, settings.phases)
    paths: queue.SimpleQueue[Path] = queue.SimpleQueue()
    threading.Thread(target=_read_requests, args=(requests, paths), daemon=True).start()
    answers.write(READY)
    answers.flush()
    while True:
        path = paths.get()
        _end_after(settings.timeout_seconds + _GRACE_SECONDS)
        result: DecodedClip | VideoError
        try:
            result = read_with(
                decoder, path, choose, settings.min_decoded_ratio, settings.max_pixels
            )
        except VideoError as error:
            result = error
        try:
            send_result(answers, result)
        except OSError:
            os._exit(0)  # nobody reads any more
        del result  # or it would stay beside the next one
        _end_after(0)


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Own both pipes: what a library prints must not end up between the answers."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, answers


def _leave_signals_to_the_parent() -> None:
    # Ctrl-C and a cluster's SIGTERM reach every process; the parent decides whether to finish.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # an ignored signal outlives exec


def _read_requests(requests: BinaryIO, paths: "queue.SimpleQueue[Path]") -> None:
    try:
        while True:
            paths.put(receive_path(requests))
    except (EOFError, OSError, ValueError):
        os._exit(0)


def _end_after(seconds: float) -> None:
    """Let the kernel end this process; no handler, so no interpreter is needed. 0 calls it off."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def main() -> None:
    """Run from the command line that `pipeline.decoding.children` writes."""
    import json

    serve(ChildSettings(**json.loads(sys.argv[1])))
