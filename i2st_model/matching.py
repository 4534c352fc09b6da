"""Distances between query clips and class prototypes, for whole batches of episodes.

Shape letters: E episodes, Q query clips, N way (or any number of clips to compare with), K shot,
T frames, M global tokens, D features. All functions are pure, differentiable and free of loops over
episodes; their largest temporary is the (E, Q, N, T, T) table of frame costs.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

COSINE_EPSILON = 1e-6
"""Least norm a vector is divided by. MoLo's released code adds 0.01 to the denominator instead:
``epsilon`` of the distances below."""
_CACHED_TABLES = 4096
"""Tables aligned at once: 8 x 8 floats of that many are 1 MiB, which stays in a core's cache."""


def unit(vectors: Tensor) -> Tensor:
    """Scale (..., D) vectors to length one, or to less below a length of `COSINE_EPSILON`."""
    return functional.normalize(vectors, dim=-1, eps=COSINE_EPSILON)


def frame_costs(query: Tensor, prototypes: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """Cosine distance of every query frame to every prototype frame.

    Args:
        query: (E, Q, T, D) float.
        prototypes: (E, N, T, D) float.
        epsilon: added to the product of the two lengths.

    Returns:
        (E, Q, N, T, T) float in [0, 2]. One minus the cosine; query frames before prototype frames.

    Raises:
        ValueError: the two differ in E, T or D.
    """
    _check_match(query, prototypes)
    E, Q, T, D = query.shape
    N = prototypes.shape[1]
    # Lengths divide the clips or the table of products, whichever is smaller: episodes have small
    # tables, all pairs of many clips a large one.
    if not epsilon and Q * N * T > (Q + N) * D:
        factors = _as_matrices(unit(query), unit(prototypes))
        costs = torch.baddbmm(query.new_ones(()), *factors, alpha=-1)
        return costs.view(E, Q, T, N, T).transpose(2, 3)
    products = torch.bmm(*_as_matrices(query, prototypes)).view(E, Q, T, N, T)
    lengths_EQT, lengths_ENT = _lengths(query), _lengths(prototypes)
    if epsilon:
        lengths = lengths_EQT[:, :, :, None, None] * lengths_ENT[:, None, None]
        return 1 - (products / (lengths + epsilon)).transpose(2, 3)
    similarity = products / lengths_EQT[:, :, :, None, None] / lengths_ENT[:, None, None]
    return 1 - similarity.transpose(2, 3)


def bi_mhm(query: Tensor, prototypes: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """Bidirectional mean Hausdorff distance between sequences of frames.

    Each frame goes to the nearest frame of the other clip, in both directions (HyRSM, Wang et al.
    2022, arXiv:2204.13423). Their code sums over frames; here each direction is a mean, so
    that the number of frames does not change the temperature. Paper: inferred from HyRSM, MoLo.

    Args:
        query: (E, Q, T, D) float.
        prototypes: (E, N, T, D) float.
        epsilon: of `frame_costs`.

    Returns:
        (E, Q, N) float in [0, 4].
    """
    costs_EQNTT = frame_costs(query, prototypes, epsilon=epsilon)
    forwards = costs_EQNTT.amin(dim=-1).mean(dim=-1)
    return forwards + costs_EQNTT.amin(dim=-2).mean(dim=-1)


def otam(
    query: Tensor, prototypes: Tensor, *, temperature: float = 0.5, epsilon: float = 0.0
) -> Tensor:
    """Ordered temporal alignment of frames, soft minimum over paths, both directions.

    Cao et al. 2020 (arXiv:1906.11415): a path may start and end anywhere in the second
    clip; in between it moves to the next frame of the second clip, with or without the next of
    the first. As in the field's released code the two directions are added. Divided by T,
    which theirs is not, so that the number of frames does not change the temperature.

    Args:
        query: (E, Q, T, D) float.
        prototypes: (E, N, T, D) float.
        temperature: lambda of the soft minimum, above 0; towards 0 it is the hard minimum.
        epsilon: of `frame_costs`.

    Returns:
        (E, Q, N) float. At most 4 in value; a soft minimum may be below 0.
    """
    costs_EQNTT = frame_costs(query, prototypes, epsilon=epsilon)
    forwards = alignment_cost(costs_EQNTT, temperature=temperature)
    backwards = alignment_cost(costs_EQNTT.transpose(-1, -2), temperature=temperature)
    return (forwards + backwards) / query.shape[2]


def alignment_cost(costs: Tensor, *, temperature: float) -> Tensor:
    """Soft cost of the best ordered path through each table, by dynamic programming.

    The recursion of `otam`, column by column: every move but those in the free columns before the
    first and after the last leads to the next column, so that a whole column is one operation.

    Args:
        costs: (..., T, S) float. Frame costs; the path crosses the last axis from left to right.
        temperature: lambda of the soft minimum, above 0.

    Returns:
        (...) float, in units of ``costs``.

    Raises:
        ValueError: ``temperature`` is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}; a number above 0 is needed")
    T, S = costs.shape[-2:]
    tables_RNTS = costs.reshape(math.prod(costs.shape[:-3]), -1, T, S)
    rows = max(1, _CACHED_TABLES // tables_RNTS.shape[1])
    # Scores -cost / lambda make the soft minimum a logsumexp; tables last, so a cell is contiguous.
    parts = [
        _best_score((part.permute(2, 3, 0, 1) / -temperature).contiguous())
        for part in tables_RNTS.split(rows)
    ]
    return torch.cat(parts).view(costs.shape[:-2]) * -temperature


def global_distance(query: Tensor, prototypes: Tensor, *, epsilon: float = 0.0) -> Tensor:
    """Cosine distance of global descriptors, token by token.

    ``2 (1 - cos)`` averaged over the M tokens, which are matched one-to-one: M = 1 is the pooled
    token (G1), M > 1 the compound tokens (G3). Paper: a global term is stated, this form is our
    choice; compound tokens are inferred from CPM (arXiv:2207.05515).

    Args:
        query: (E, Q, M, D) float.
        prototypes: (E, N, M, D) float.
        epsilon: added to the product of the two lengths.

    Returns:
        (E, Q, N) float in [0, 4].

    Raises:
        ValueError: the two differ in E, M or D.
    """
    _check_match(query, prototypes)
    M = query.shape[2]
    if epsilon:
        products = torch.einsum("eqmd,enmd->eqnm", query, prototypes)
        lengths = _lengths(query).unsqueeze(2) * _lengths(prototypes).unsqueeze(1)
        return 2 - 2 * (products / (lengths + epsilon)).mean(dim=-1)
    similarity = torch.bmm(unit(query).flatten(2), unit(prototypes).flatten(2).transpose(1, 2))
    return 2 - 2 * similarity / M


def prototype_distance(query: Tensor, prototypes: Tensor) -> Tensor:
    """Squared Euclidean distance to class prototypes (Snell et al. 2017, arXiv:1703.05175, Eq. 2).

    Args:
        query: (E, Q, D) float.
        prototypes: (E, N, D) float.

    Returns:
        (E, Q, N) float, not below 0.
    """
    cross = torch.bmm(query, prototypes.transpose(1, 2))
    squares = query.square().sum(-1).unsqueeze(2) + prototypes.square().sum(-1).unsqueeze(1)
    return (squares - 2 * cross).clamp_min(0)


def _as_matrices(query: Tensor, prototypes: Tensor) -> tuple[Tensor, Tensor]:
    """Clips as factors (E, Q T, D) and (E, D, N T) of one product per episode."""
    return query.flatten(1, 2), prototypes.flatten(1, 2).transpose(1, 2)


def _lengths(vectors: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vectors, dim=-1).clamp_min(COSINE_EPSILON)


def _best_score(scores: Tensor) -> Tensor:
    """Log of the sum over paths of exp(score): (T, S, R, N) to (R, N)."""
    T, S = scores.shape[:2]
    # Below the first row the free column lets a path in from two cells of score 0 each.
    entry = scores.new_full((), math.log(2))
    first = [scores[0, 0]]
    for t in range(1, T):
        first.append(scores[t, 0] + torch.logaddexp(first[-1], entry))
    column = torch.stack(first)
    for s in range(1, S):
        arrivals = torch.cat([column[:1], torch.logaddexp(column[1:], column[:-1])])
        column = scores[:, s] + arrivals
    # The free column after the last is entered from each row twice, level and falling; the last
    # row has nothing below it to fall to.
    return torch.logsumexp(torch.cat([column, column[:-1]]), dim=0)


def _check_match(query: Tensor, prototypes: Tensor) -> None:
    if query.shape[:1] + query.shape[2:] != prototypes.shape[:1] + prototypes.shape[2:]:
        raise ValueError(
            f"query has shape {tuple(query.shape)}, prototypes have {tuple(prototypes.shape)}; "
            "episodes, frames and features must agree; describe both with one method"
        )
