"""One table of the scores of all pairs of videos, where it serves episodes exactly and cheaper.

Where the score of two videos depends on nothing else, such a table holds every score there can be;
it is made when that costs less than the pairs that the episodes ask for.

Shape letters: V videos, E episodes, N way, K shot, Q query clips.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from i2st_model.evaluating.scoring import Score, Scores
from i2st_model.methods.base import FewShotMethod

TABLE_QUERIES, TABLE_SUPPORT = 32, 128
"""Videos per launch of the table of all pairs."""
GATHERED_PAIR = 2
"""Cost of a pair among gathered clips, measured in pairs of the table, which gathers none."""


def table_pays(method: FewShotMethod, num_videos: int, pairs: int, shot: int) -> bool:
    """Whether a table of all pairs is exact for a method, and cheaper than the pairs needed."""
    exact = method.classes_apart and (shot == 1 or method.shots_apart)
    return exact and GATHERED_PAIR * pairs > num_videos**2


def pair_table(score: Score, tensors: Mapping[str, Tensor], places: Tensor) -> Tensor:
    """Score every video as a query against every video as the one shot of a class.

    Args:
        score: of a method whose classes are apart.
        tensors: what it prepared.
        places: (V,) int64. Which of the prepared videos.

    Returns:
        (V, V) float; row is the query, column the support.
    """
    num_videos = len(places)
    support = places[_padded(num_videos, TABLE_SUPPORT, places.device)]
    query = places[_padded(num_videos, TABLE_QUERIES, places.device)]
    strips = []
    for some in query.split(TABLE_QUERIES):
        queries = {name: value[None, some] for name, value in tensors.items()}
        columns = [
            score({name: value[None, shots, None] for name, value in tensors.items()}, queries)[0]
            for shots in support.split(TABLE_SUPPORT)
        ]
        strips.append(torch.cat(columns, dim=1))
    return torch.cat(strips)[:num_videos, :num_videos]


def look_up(table: Tensor, places: Tensor) -> Scores:
    """Scores of episodes as means over shots of entries of the table.

    Args:
        table: see `pair_table`.
        places: (V,) int64. Which of the prepared videos its rows are.

    Returns:
        A function of places among the prepared videos.
    """
    of_place = torch.empty(int(places.max()) + 1, dtype=torch.int64, device=places.device)
    of_place[places] = torch.arange(len(places), device=places.device)

    def scores(support_ENK: Tensor, query_EQ: Tensor) -> Tensor:
        query, support = of_place[query_EQ], of_place[support_ENK]
        return table[query[:, :, None, None], support[:, None]].mean(dim=3)

    return scores


def _padded(count: int, multiple: int, device: torch.device) -> Tensor:
    """0 .. count - 1, with the last one repeated up to a whole number of launches."""
    whole = -(-count // multiple) * multiple
    return torch.arange(whole, device=device).clamp(max=count - 1)
