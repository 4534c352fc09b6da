"""The evaluation engine: videos prepared once, then episodes as gathers, the cheapest exact way.

Public few-shot code runs its head episode by episode on clips that it encodes anew. Here a method
prepares every video once, and scores many episodes at a time. Where the score of two videos depends
on nothing else, one table of all pairs holds every score there can be; it is made when that costs
less than the pairs that the episodes ask for. Launches have fixed shapes, so that no score depends
on its mates.

Shape letters: V videos, E episodes, N way, K shot, q queries per class, Q = N q.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from i2st_model.evaluating.scoring import Score, episodes_at_a_time
from i2st_model.methods.base import FewShotMethod
from i2st_model.records.episode_sets import EpisodeSet

TABLE_QUERIES, TABLE_SUPPORT = 32, 128
"""Videos per launch of the table of all pairs."""
GATHERED_PAIR = 2
"""Cost of a pair among gathered clips, measured in pairs of the table, which gathers none."""
TABLE_EPISODES = 2048
"""Episodes looked up at a time."""

OnBatch = Callable[[int], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedVideos:
    """What a method made of V videos, ready to be scored against each other."""

    method: FewShotMethod
    tensors: dict[str, Tensor]
    """Each with first axis V."""
    rows: NDArray[np.int64]
    """(V,) rows of the videos in their shards, ascending."""

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self.tensors.values())).device

    def places(self, rows: NDArray[np.int64]) -> Tensor:
        """Positions of rows among the prepared ones: int64, of the same shape."""
        return torch.from_numpy(np.searchsorted(self.rows, rows)).to(self.device)


@torch.no_grad()
def predict(
    prepared: PreparedVideos,
    episodes: EpisodeSet,
    rows: NDArray[np.int64],
    *,
    batch_episodes: int | None = None,
    on_batch: OnBatch | None = None,
) -> NDArray[np.int64]:
    """Predict the class of every query of every episode.

    Args:
        prepared: holds all videos of the episodes.
        episodes: E episodes.
        rows: (V',) rows of the episodes' videos, in the order of ``episodes.video_ids``.
        batch_episodes: episodes at a time; what suits the device unless given.
        on_batch: called with the number of episodes done.

    Returns:
        (E, N, q) position among the episode's classes.
    """
    places = prepared.places(rows)
    device = prepared.device
    support_ENK = places[torch.from_numpy(episodes.support).to(device)]
    query_EQ = places[torch.from_numpy(episodes.query).to(device)].flatten(1)
    method, shot = prepared.method, episodes.shot
    scores: Callable[[Tensor, Tensor], Tensor]
    if table_pays(method, len(rows), query_EQ.numel() * episodes.way * shot, shot):
        table = _look_up(pair_table(method.score, prepared.tensors, places), places)
        size = batch_episodes or TABLE_EPISODES
        scores = table
    else:
        clips = episodes.way * (shot + episodes.queries)
        size = batch_episodes or episodes_at_a_time(prepared.tensors, clips)
        scores = _gather(method, prepared.tensors)
    parts = []
    for first in range(0, episodes.num_episodes, size):
        parts.append(_one_batch(scores, support_ENK, query_EQ, first, size))
        if on_batch is not None:
            on_batch(min(first + size, episodes.num_episodes))
    return torch.cat(parts).view(episodes.query.shape).cpu().numpy()


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


def _look_up(table: Tensor, places: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """Scores of episodes as means over shots of entries of the table."""
    of_place = torch.empty(int(places.max()) + 1, dtype=torch.int64, device=places.device)
    of_place[places] = torch.arange(len(places), device=places.device)

    def scores(support_ENK: Tensor, query_EQ: Tensor) -> Tensor:
        query, support = of_place[query_EQ], of_place[support_ENK]
        return table[query[:, :, None, None], support[:, None]].mean(dim=3)

    return scores


def _gather(
    method: FewShotMethod, tensors: Mapping[str, Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    """Scores of episodes by the method, on what it prepared."""
    average = method.averages_shots and all(v.is_floating_point() for v in tensors.values())
    take = _mean_shots if average else _all_shots

    def scores(support_ENK: Tensor, query_EQ: Tensor) -> Tensor:
        support = {name: take(value, support_ENK) for name, value in tensors.items()}
        return method.score(support, {n: _queries(value, query_EQ) for n, value in tensors.items()})

    return scores


def _queries(values: Tensor, query_EQ: Tensor) -> Tensor:
    # Indexing with a table takes three times as long on a CPU.
    return values.index_select(0, query_EQ.flatten()).view(*query_EQ.shape, *values.shape[1:])


def _all_shots(values: Tensor, support_ENK: Tensor) -> Tensor:
    return values[support_ENK]


def _mean_shots(values: Tensor, support_ENK: Tensor) -> Tensor:
    """Mean over shots as one shot, in one pass: the clips themselves are never copied."""
    bags = support_ENK.flatten(0, 1)
    mean = functional.embedding_bag(bags, values.reshape(len(values), -1), mode="mean")
    return mean.view(*support_ENK.shape[:2], 1, *values.shape[1:])


def _one_batch(
    scores: Callable[[Tensor, Tensor], Tensor],
    support_ENK: Tensor,
    query_EQ: Tensor,
    first: int,
    size: int,
) -> Tensor:
    """Predictions (e, Q) of up to ``size`` episodes; the last batch is padded to the same shape."""
    some = torch.arange(first, first + min(size, len(query_EQ)), device=query_EQ.device)
    left = int((some < len(query_EQ)).sum())
    some = some.clamp(max=len(query_EQ) - 1)
    return scores(support_ENK[some], query_EQ[some]).argmax(dim=-1)[:left]


def _padded(count: int, multiple: int, device: torch.device) -> Tensor:
    """0 .. count - 1, with the last one repeated up to a whole number of launches."""
    whole = -(-count // multiple) * multiple
    return torch.arange(whole, device=device).clamp(max=count - 1)
