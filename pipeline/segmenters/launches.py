"""Launches of one fixed shape, so that no row's bits depend on how many rows share its call.

A matrix product may add in another order when it has other rows; a call that is always of the same
size, filled up where rows are missing, leaves each row as it would be in any company.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def launch(run: Callable[..., tuple[Tensor, ...]], *rows: Tensor, size: int) -> tuple[Tensor, ...]:
    """Call ``run`` on ``size`` rows at a time and put its results together.

    Args:
        run: (size, ...) tensors to a tuple of (size, ...) tensors, row by row.
        *rows: (n, ...) tensors of equally many rows, n >= 1.
        size: rows of a call; the last row is repeated to fill the last call.

    Returns:
        (n, ...) tensors.
    """
    parts = []
    for start in range(0, len(rows[0]), size):
        own = [tensor[start : start + size] for tensor in rows]
        results = run(*(filled_up(tensor, size) for tensor in own))
        parts.append([result[: len(own[0])] for result in results])
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def filled_up(rows: Tensor, count: int) -> Tensor:
    """Rows 1 .. count of a launch: the last is repeated where they run out."""
    missing = count - len(rows)
    return torch.cat([rows, rows[-1:].expand(missing, *rows.shape[1:])]) if missing else rows


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 on a GPU, float32 elsewhere; weights stay float32 in both."""
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")
