"""The processes that share a run: one alone, or those that torchrun started.

Each takes some of a step's pools. Gradients are summed in float64, where float32 numbers of like
size add exactly, so neither the number of processes nor their order shows in the weights.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from pipeline.devices import resolve_device
from pipeline.errors import ConfigError, I2STError
from pipeline.shards.fingerprint import differences

FOREVER = timedelta(days=365)
"""Others wait as long as the first one takes to look at the val split; a process that dies is
noticed by its closed connection and by torchrun, not by a timeout."""

Item = TypeVar("Item")


class Ranks:
    """This process among those that share a run.

    Args:
        number: of this process; 0 alone writes files and speaks.
        count: of all processes.
        device: where sums over processes are made.
    """

    def __init__(self, number: int = 0, count: int = 1, device: str = "cpu") -> None:
        self.number, self.count, self.device = number, count, device

    @property
    def local(self) -> int:
        """Number of this process on its machine, which decides its GPU."""
        return int(os.environ.get("LOCAL_RANK", "0")) if self.count > 1 else 0

    def own_device(self, name: str) -> str:
        """Device of this process.

        Args:
            name: auto, cpu, cuda or cuda:N.

        Returns:
            cpu, or cuda:N with a GPU to each process of this machine.

        Raises:
            ConfigError: there is no such device, or no GPU is left for this process.
        """
        device = resolve_device(name, self.local)
        if self.count > 1 and device not in ("cpu", f"cuda:{self.local}"):
            fewer = "start fewer with --nproc-per-node, or pass --device cpu"
            raise ConfigError(
                f"device={name} gives process {self.local} of this machine {device}, of "
                f"{torch.cuda.device_count()} GPUs; one for each process, from 0 on, was needed; "
                f"{'pass --device cuda' if ':' in name else fewer}"
            )
        return device

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.number == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of the items that are this process's: every ``count``-th."""
        return items[self.number :: self.count]

    def sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes, in place where there are several."""
        if self.count > 1:
            there = values.to(self.device)
            distributed.all_reduce(there)
            return there.to(values.device)
        return values

    def from_first(self, make: Callable[[], str]) -> str:
        """Text that the first process makes, in all of them."""
        if self.count == 1:
            return make()
        with self.together():
            text = make() if self.first else ""
        return self._text(text, 0)

    def require_same(self, told: Mapping[str, Any]) -> None:
        """Refuse, in every process, to share a run where one was told another than the first.

        Args:
            told: JSON values by name, as this process was told them.

        Raises:
            ConfigError: names the values that differ, with both.
        """
        if self.count == 1:
            return
        first = json.loads(self._text(json.dumps(told), 0))
        with self.together():
            differing = differences(first, told)
            if differing:
                raise ConfigError(
                    f"process {self.number} (here) was started otherwise than process 0 (there): "
                    f"{', '.join(differing)}; one run was needed; start all processes with the "
                    "same settings, on the same shards"
                )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise in every process what one of them raises inside.

        Raises:
            I2STError: another process failed; the text is that of its fault.
        """
        if self.count == 1:
            yield
            return
        try:
            yield
        except Exception as fault:
            self._judge(fault)
            raise
        self._judge(None)

    def _judge(self, fault: Exception | None) -> None:
        """Let the lowest process that failed speak for all."""
        code = 0
        if fault is not None:
            code = fault.exit_code if isinstance(fault, I2STError) else 1
        codes = torch.zeros(self.count, dtype=torch.int64)
        codes[self.number] = code
        distributed.all_reduce(codes)
        failed = codes.nonzero().flatten().tolist()
        if not failed:
            return
        said = str(fault) if isinstance(fault, I2STError) else repr(fault)
        text = self._text(f"{said} (process {self.number} of {self.count})", failed[0])
        if fault is None:
            error = I2STError(text)
            error.exit_code = int(codes[failed[0]])
            raise error

    def _text(self, text: str, source: int) -> str:
        """Text of one process, in all of them."""
        data = torch.tensor(list(text.encode()), dtype=torch.uint8)
        size = torch.tensor(len(data))
        distributed.broadcast(size, source)
        buffer = data if self.number == source else torch.zeros(int(size), dtype=torch.uint8)
        if size:
            distributed.broadcast(buffer, source)
        return bytes(buffer.tolist()).decode()


def current_ranks() -> Ranks:
    """This process's place in the group that `joined_ranks` has joined, or alone."""
    if not distributed.is_initialized():
        return Ranks()
    device = "cuda" if "nccl" in distributed.get_backend_config() else "cpu"
    return Ranks(distributed.get_rank(), distributed.get_world_size(), device)


@contextmanager
def joined_ranks(*, device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, as its environment variables tell.

    Args:
        device: auto, cpu or cuda; on GPUs nccl sums, else gloo.

    Yields:
        Ranks: This process's place; alone where torchrun did not start it.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or distributed.is_initialized():
        yield current_ranks()
        return
    if os.environ.get("MASTER_ADDR") in ("127.0.0.1", "localhost"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    cuda = device != "cpu" and torch.cuda.is_available()
    # torch's optimizers import this module, whose signatures keep the group of the moment alive:
    # its threads would outlast the `destroy_process_group` below, and one that lets go of a tensor
    # while the interpreter ends aborts the process.
    import_module("torch.distributed.nn")
    # Errors and names travel between CPUs in any case.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    distributed.init_process_group(backend, timeout=FOREVER)
    try:
        ranks = current_ranks()
        if cuda and ranks.local < torch.cuda.device_count():  # else `own_device` says so
            torch.cuda.set_device(ranks.local)
        yield ranks
    finally:
        distributed.destroy_process_group()
