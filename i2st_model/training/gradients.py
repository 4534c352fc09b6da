"""Gradients of several pools, averaged over all processes of a run."""

import torch
from torch import Tensor, nn

from i2st_model.training.ranks import Ranks


class GradientSum:
    """Adds up gradients pool by pool, then over processes.

    The sums are float64: there, float32 gradients of like size add without rounding, so the order
    of pools and processes decides no bit of the result.

    Args:
        parameters: that train.
        ranks: the processes; each adds the gradients of its own pools.
    """

    def __init__(self, parameters: list[nn.Parameter], ranks: Ranks) -> None:
        self._parameters, self._ranks = parameters, ranks
        self._sums: list[Tensor | None] = [None] * len(parameters)

    def take(self) -> None:
        """Add the gradients that lie on the parameters, and clear them."""
        for place, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                wide, before = parameter.grad.double(), self._sums[place]
                self._sums[place] = wide if before is None else before.add_(wide)
                parameter.grad = None

    @torch.no_grad()
    def give(self) -> None:
        """Put the sums over all processes on the parameters; none where no process had one."""
        if self._ranks.count > 1:
            self._sum_over_processes()
        for parameter, total in zip(self._parameters, self._sums, strict=True):
            parameter.grad = None if total is None else total.to(parameter.dtype)

    def _sum_over_processes(self) -> None:
        device = self._parameters[0].device
        had = torch.tensor([total is not None for total in self._sums], dtype=torch.float64)
        parts = [
            torch.zeros_like(parameter, dtype=torch.float64) if total is None else total
            for parameter, total in zip(self._parameters, self._sums, strict=True)
        ]
        # One collective for all parameters: small ones would cost a round trip each.
        flat = torch.cat([had.to(device), *(part.flatten() for part in parts)])
        flat = self._ranks.sum(flat)
        sizes = [len(parts), *(part.numel() for part in parts)]
        given, *sums = flat.split(sizes)
        self._sums = [
            total.view_as(part) if any_had else None
            for any_had, total, part in zip(given.tolist(), sums, parts, strict=True)
        ]
