"""Global-local prototype matching: the network's distance of a query clip to a class.

Shape letters: E episodes, Q query clips, N way, K shot, T frames, M global tokens, F focused
tokens, D features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from i2st_model import matching
from i2st_model.assignment import assigned_cost
from i2st_model.config import NetworkConfig
from i2st_model.relation import InterRelation

RELATED_BYTES = 64 << 20
"""Support descriptors made at a time by a relation, which gives every query its own."""


def global_weight(config: NetworkConfig, *, training: bool) -> float:
    """Weight w of the global term, 0 where it is not used."""
    used = {"always": True, "training": training, "test": not training}
    return config.global_weight if used[config.global_when] else 0.0


def class_distances(
    config: NetworkConfig,
    weight: float,
    query: Mapping[str, Tensor],
    support: Mapping[str, Tensor],
    relation: InterRelation | None,
) -> Tensor:
    """Mix local and global distances of queries to classes, related first where clips are.

    Args:
        config: which global term, and whether shots are averaged before or after matching.
        weight: w in [0, 1], of the global term.
        query: descriptors with leading axes (E, Q).
        support: descriptors with leading axes (E, N, K).
        relation: conditions both on the episode, query by query; None leaves them as they are.

    Returns:
        (E, Q, N) float.
    """
    if relation is None:
        return prototype_distances(config, weight, query, support)
    return related_distances(config, weight, query, support, relation)


def prototype_distances(
    config: NetworkConfig,
    weight: float,
    query: Mapping[str, Tensor],
    support: Mapping[str, Tensor],
) -> Tensor:
    """Mix local and global distances of queries to classes.

    Args:
        config: which global term, and whether shots are averaged before or after matching.
        weight: w in [0, 1], of the global term.
        query: ``local`` (E, Q, T, D) and ``global`` (E, Q, M, D) float, ``focused`` (E, Q, F, D)
            where the network has such tokens.
        support: the same with leading axes (E, N, K).

    Returns:
        (E, Q, N) float.
    """
    N, K = support["local"].shape[1:3]
    if config.prototypes == "before_matching":
        classes = {name: value.mean(dim=2) for name, value in support.items()}
    else:
        classes = {name: value.flatten(1, 2) for name, value in support.items()}
    distance = query["local"].new_zeros(())
    if weight < 1:
        epsilon = config.cosine_epsilon
        local = matching.bi_mhm(query["local"], classes["local"], epsilon=epsilon)
        distance = distance + (1 - weight) * local
    if weight > 0:
        distance = distance + weight * _global_term(config, query, classes)
    if config.prototypes == "after_matching":
        distance = distance.unflatten(2, (N, K)).mean(dim=3)
    return distance


def related_distances(
    config: NetworkConfig,
    weight: float,
    query: Mapping[str, Tensor],
    support: Mapping[str, Tensor],
    relation: InterRelation,
) -> Tensor:
    """Mix distances as `class_distances` does, a part of the queries at a time.

    Args:
        config: as for `class_distances`.
        weight: w in [0, 1], of the global term.
        query: descriptors with leading axes (E, Q).
        support: descriptors with leading axes (E, N, K).
        relation: conditions both on the episode, query by query.

    Returns:
        (E, Q, N) float.
    """
    E, Q = query["local"].shape[:2]
    N, K = support["local"].shape[1:3]
    per_clip = sum(value[0, 0].numel() * value.element_size() for value in query.values())
    shots = 1 if relation.mean_shots else K
    size = max(1, RELATED_BYTES // (E * N * shots * per_clip))
    columns = []
    for first in range(0, Q, size):
        some = {name: value[:, first : first + size] for name, value in query.items()}
        seen_query, seen_support = relation(some, support)
        # Every query is an episode of its own now.
        alone = {name: value.flatten(0, 1).unsqueeze(1) for name, value in seen_query.items()}
        around = {name: value.flatten(0, 1) for name, value in seen_support.items()}
        distances = prototype_distances(config, weight, alone, around)
        columns.append(distances.view(E, -1, N))
    return torch.cat(columns, dim=1)


def _global_term(
    config: NetworkConfig, query: Mapping[str, Tensor], classes: Mapping[str, Tensor]
) -> Tensor:
    epsilon = config.cosine_epsilon
    if config.global_matching == "otam":
        return matching.otam(
            query["local"],
            classes["local"],
            temperature=config.otam_temperature,
            epsilon=epsilon,
        )
    distance = matching.global_distance(query["global"], classes["global"], epsilon=epsilon)
    if not config.focused_tokens:
        return distance
    costs = matching.frame_costs(query["focused"], classes["focused"], epsilon=epsilon)
    share = config.focused_tokens / (config.focused_tokens + config.num_global_tokens)
    return (1 - share) * distance + share * 2 * assigned_cost(costs)
