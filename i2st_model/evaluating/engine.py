"""The evaluation engine: videos prepared once, then episodes as gathers, the cheapest exact way.

Public few-shot code runs its head episode by episode on clips that it encodes anew. Here a method
prepares every video once, and scores many episodes at a time, by a table of all pairs of videos
where that is exact and cheaper. Launches have fixed shapes, so that no score depends on its mates.

Shape letters: V videos, E episodes, N way, K shot, q queries per class, Q = N q.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from i2st_model.evaluating.pair_tables import look_up, pair_table, table_pays
from i2st_model.evaluating.scoring import Score, Scores, episodes_at_a_time
from i2st_model.methods.base import FewShotMethod
from i2st_model.records.episode_sets import EpisodeSet

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
    scores: Scores
    if table_pays(method, len(rows), query_EQ.numel() * episodes.way * shot, shot):
        table = look_up(pair_table(method.score, prepared.tensors, places), places)
        size = batch_episodes or TABLE_EPISODES
        scores = table
    else:
        clips = episodes.way * (shot + episodes.queries)
        size = batch_episodes or episodes_at_a_time(prepared.tensors, clips)
        scores = gathered(method.score, prepared.tensors, average=method.averages_shots)
    parts, done = [], 0
    for part in predict_batches(scores, support_ENK, query_EQ, size):
        parts.append(part)
        done += len(part)
        if on_batch is not None:
            on_batch(done)
    return torch.cat(parts).view(episodes.query.shape).cpu().numpy()


def predict_batches(
    scores: Scores, support_ENK: Tensor, query_EQ: Tensor, size: int
) -> Iterator[Tensor]:
    """Predict the class of every query, some episodes at a time.

    Args:
        scores: see `gathered`.
        support_ENK: (E, N, K) int64. Places among the prepared videos.
        query_EQ: (E, Q) int64. The same of the queries.
        size: episodes at a time.

    Yields:
        Tensor: (e, Q) int64 position among the episode's classes, of the next e episodes.
    """
    for first in range(0, len(query_EQ), size):
        yield _one_batch(scores, support_ENK, query_EQ, first, size)


def gathered(score: Score, tensors: Mapping[str, Tensor], *, average: bool = False) -> Scores:
    """Scores of episodes by a method, on what it prepared.

    Args:
        score: of the method: support, query -> logits.
        tensors: what it prepared, first axis V.
        average: give it the mean over shots as one shot.

    Returns:
        A function of places among the prepared videos.
    """
    floats = all(value.is_floating_point() for value in tensors.values())
    take = _mean_shots if average and floats else _all_shots

    def scores(support_ENK: Tensor, query_EQ: Tensor) -> Tensor:
        support = {name: take(value, support_ENK) for name, value in tensors.items()}
        return score(support, {n: _queries(value, query_EQ) for n, value in tensors.items()})

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
    scores: Scores,
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
