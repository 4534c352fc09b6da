"""What a method makes of many videos, once each, and the episodes that gather among it.

Shape letters: V videos, E episodes, N way, K shot, q queries per class, Q = N q.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.episodes import Episode, EpisodeSampler

PREPARE_VIDEOS = 16
"""Videos per call. Fixed, and the last call is padded, so that no result ever depends on it."""

GATHER_BYTES = {"cpu": 32 << 20, "cuda": 2 << 30}
"""Prepared videos gathered at a time. On a CPU larger gathers leave the cache and take fresh memory
pages each time, which measured 2 to 3 times slower; a GPU wants few launches."""

Score = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Predictions:
    """What a method says about the queries of E episodes."""

    classes: NDArray[np.int64]
    """(E, N) class numbers."""
    predicted: NDArray[np.int64]
    """(E, N, q) position among the episode's classes; right where it equals the middle index."""

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(E, N, q): whether the prediction is the true class."""
        return self.predicted == np.arange(self.predicted.shape[1])[None, :, None]


def prepare_videos(
    rows: NDArray[np.int64], prepare: Callable[[NDArray[np.int64]], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """Prepare every video once.

    Args:
        rows: (V,) rows of the videos.
        prepare: rows of PREPARE_VIDEOS videos -> named tensors with that first axis.

    Returns:
        Named tensors with first axis V, in the order of ``rows``.
    """
    whole: dict[str, Tensor] = {}
    for start in range(0, len(rows), PREPARE_VIDEOS):
        chunk = rows[start : start + PREPARE_VIDEOS]
        padded = np.pad(chunk, (0, PREPARE_VIDEOS - len(chunk)), mode="edge")
        for name, value in prepare(padded).items():
            # Filled in place: parts that are joined at the end would lie in memory twice.
            if name not in whole:
                whole[name] = value.new_empty(len(rows), *value.shape[1:])
            whole[name][start : start + len(chunk)] = value[: len(chunk)]
    return whole


@torch.no_grad()
def predict_episodes(
    episode: Episode, places: Tensor, prepared: Mapping[str, Tensor], score: Score
) -> Predictions:
    """Predict the class of every query of E episodes.

    Args:
        episode: E stacked episodes.
        places: (rows in the shards,) int64. Row -> position among the prepared videos.
        prepared: first axis V.
        score: of the method: support, query -> logits.

    Returns:
        Classes and predictions.
    """
    E, N, _ = episode.query.shape
    support_ENK = places[torch.from_numpy(episode.support).to(places.device)]
    query_EQ = places[torch.from_numpy(episode.query).to(places.device)].flatten(1)
    scores_EQN = score(
        {name: value[support_ENK] for name, value in prepared.items()},
        {name: value[query_EQ] for name, value in prepared.items()},
    )
    predicted = scores_EQN.argmax(dim=-1).view(E, N, -1).cpu().numpy()
    return Predictions(classes=episode.classes, predicted=predicted)


def episodes_at_a_time(prepared: Mapping[str, Tensor], clips: int) -> int:
    """Episodes of ``clips`` clips each that suit the device; decides speed alone."""
    some = next(iter(prepared.values()))
    per_clip = sum(value[0].numel() * value.element_size() for value in prepared.values())
    return max(1, GATHER_BYTES.get(some.device.type, GATHER_BYTES["cpu"]) // (per_clip * clips))


def places_of(rows: NDArray[np.int64], num_rows: int, device: torch.device) -> Tensor:
    """(num_rows,) int64 position of each row among ``rows``; -1 for the others."""
    places = np.full(num_rows, -1, dtype=np.int64)
    places[rows] = np.arange(len(rows))
    return torch.from_numpy(places).to(device)


def episode_batches(sampler: EpisodeSampler, count: int, size: int) -> Iterator[Episode]:
    """Episodes 0 .. count - 1, ``size`` at a time."""
    for first in range(0, count, size):
        yield sampler.batch(first, min(size, count - first))
