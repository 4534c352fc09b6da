"""Gates before the models: how many hands of a worker may compute at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Gate:
    """Lets a fixed number of threads through at once, each with one torch thread.

    Sums are divided over torch's threads, so their number shows in the last bit of the features.

    Args:
        num_at_once: threads that may be inside.
    """

    def __init__(self, num_at_once: int) -> None:
        self._places = threading.Semaphore(num_at_once)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a place, and leave it at the end."""
        with self._places:
            # A thread takes over the number of torch threads when it first computes, and keeps it.
            if torch.get_num_threads() != 1:
                torch.set_num_threads(1)
            yield


def open_gates(device: str, num_processors: int) -> tuple[Gate, Gate]:
    """Gates of encoder and segmenter.

    Args:
        device: cpu: they share the processors; cuda:N: each takes one batch after the other, so
            that memory holds one and launches keep their order.
        num_processors: that this worker may use.

    Returns:
        Both gates; one and the same on the CPU.
    """
    if device == "cpu":
        gate = Gate(num_processors)
        return gate, gate
    return Gate(1), Gate(1)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Set the number of torch threads for threads to come; give back what was there."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
