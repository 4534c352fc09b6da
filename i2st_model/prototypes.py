"""Global-local prototype matching: the network's distance of a query clip to a class.

Shape letters: E episodes, Q query clips, N way, K shot, T frames, M global tokens, D features.
"""

from collections.abc import Mapping

from torch import Tensor

from i2st_model import matching
from i2st_model.config import NetworkConfig


def prototype_distances(
    config: NetworkConfig,
    global_weight: float,
    query: Mapping[str, Tensor],
    support: Mapping[str, Tensor],
) -> Tensor:
    """Mix local and global distances of queries to classes.

    Args:
        config: which global term, and whether shots are averaged before or after matching.
        global_weight: w in [0, 1].
        query: ``local`` (E, Q, T, D) and ``global`` (E, Q, M, D) float.
        support: ``local`` (E, N, K, T, D) and ``global`` (E, N, K, M, D) float.

    Returns:
        (E, Q, N) float.
    """
    N, K = support["local"].shape[1:3]
    if config.prototypes == "before_matching":
        classes = {name: value.mean(dim=2) for name, value in support.items()}
    else:
        classes = {name: value.flatten(1, 2) for name, value in support.items()}
    distance = query["local"].new_zeros(())
    if global_weight < 1:
        local = matching.bi_mhm(query["local"], classes["local"])
        distance = distance + (1 - global_weight) * local
    if global_weight > 0:
        distance = distance + global_weight * _global_term(config, query, classes)
    if config.prototypes == "after_matching":
        distance = distance.unflatten(2, (N, K)).mean(dim=3)
    return distance


def _global_term(
    config: NetworkConfig, query: Mapping[str, Tensor], classes: Mapping[str, Tensor]
) -> Tensor:
    if config.global_matching == "otam":
        temperature = config.otam_temperature
        return matching.otam(query["local"], classes["local"], temperature=temperature)
    return matching.global_distance(query["global"], classes["global"])
