"""Cheapest one-to-one assignment of two small sets, for any number of pairs of sets at once.

Shape letters: M elements of a set, P pairs of sets, S subsets of one size, R elements of each.
"""

from functools import lru_cache
from itertools import combinations

import torch
from torch import Tensor

LARGEST = 10
"""Elements at most: time and memory grow with M 2^M, 5,120 numbers a pair at 10."""


def assigned_cost(costs: Tensor) -> Tensor:
    """Mean cost of the best one-to-one assignment.

    Exact, as the Hungarian algorithm is, by dynamic programming over the subsets of columns that
    the first rows use; M <= `LARGEST` makes that cheaper for whole batches than a loop over pairs.
    The gradient is that of the chosen costs, the assignment held fixed.

    Args:
        costs: (..., M, M) float.

    Returns:
        (...) float, in units of ``costs``.

    Raises:
        ValueError: the tables are not square, or larger than `LARGEST`.
    """
    M = costs.shape[-1]
    if costs.shape[-2] != M or not 1 <= M <= LARGEST:
        raise ValueError(
            f"costs have shape {tuple(costs.shape)}; square tables of side 1 to {LARGEST} are "
            "needed; use fewer focused tokens"
        )
    chosen = best_assignment(costs.detach()).unsqueeze(-1)
    return costs.gather(-1, chosen).squeeze(-1).mean(dim=-1)


@torch.no_grad()
def best_assignment(costs: Tensor) -> Tensor:
    """Column of each row in the cheapest assignment: (..., M) int64 of (..., M, M) costs."""
    M = costs.shape[-1]
    # Pairs last, so that every subset's cost is one contiguous row.
    table_MMP = costs.reshape(-1, M, M).permute(1, 2, 0).contiguous()
    spent_SP = table_MMP.new_zeros(1, table_MMP.shape[-1])
    picks = []
    for row, (columns_SR, before_SR) in enumerate(_subsets(M, costs.device)):
        total_SRP = spent_SP[before_SR] + table_MMP[row][columns_SR]
        spent_SP, pick_SP = total_SRP.min(dim=1)
        picks.append(pick_SP)
    return _trace(picks, M).T.reshape(*costs.shape[:-1])


def _trace(picks: list[Tensor], M: int) -> Tensor:
    """Follow the picks back from the set of all columns: (M, P) int64."""
    subset_P = torch.zeros_like(picks[-1][0])
    rows = []
    for pick_SP, (columns_SR, before_SR) in zip(
        reversed(picks), reversed(_subsets(M, subset_P.device)), strict=True
    ):
        pick_P = pick_SP.gather(0, subset_P.unsqueeze(0)).squeeze(0)
        rows.append(columns_SR[subset_P, pick_P])
        subset_P = before_SR[subset_P, pick_P]
    return torch.stack(rows[::-1])


@lru_cache(maxsize=16)
def _subsets(M: int, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """For sizes R = 1 .. M: columns of each subset, and which smaller subset lacks each of them."""
    levels = []
    places: dict[tuple[int, ...], int] = {(): 0}
    for size in range(1, M + 1):
        subsets = list(combinations(range(M), size))
        before = [[places[subset[:r] + subset[r + 1 :]] for r in range(size)] for subset in subsets]
        levels.append((torch.tensor(subsets).to(device), torch.tensor(before).to(device)))
        places = {subset: place for place, subset in enumerate(subsets)}
    return levels
