"""I2ST in batches of episodes, beside one episode at a time from prepared and from new clips."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.random_videos import (
    FRAMES,
    NUM_VIDEOS,
    SHOT,
    WAY,
    cpu_seconds,
    drawn,
    medians_in_turn,
)
from i2st_model.config import preset
from i2st_model.evaluating.engine import PreparedVideos, predict
from i2st_model.evaluating.scoring import prepare_videos
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips
from i2st_model.network import build_network
from i2st_model.records.episode_sets import EpisodeSet

GRID, CHANNELS = 7, 768


def print_i2st(videos: int, count: int, loop: int, rounds: int) -> None:
    """Table of CPU seconds of I2ST: batched, one by one, and with clips prepared anew."""
    generator = torch.Generator().manual_seed(0)
    network = build_network(preset("i2st", token_dim=CHANNELS, grid=GRID))
    network.fit_stem(torch.randn(2000, CHANNELS, generator=generator))
    method = get_method("i2st", network=network)
    # Fewer videos for want of memory; the time to prepare is scaled to NUM_VIDEOS.
    tokens = torch.randn(videos, FRAMES, GRID**2, CHANNELS, generator=generator)

    def prepare(rows: NDArray[np.int64]) -> Mapping[str, Tensor]:
        with torch.no_grad():
            return method.prepare(Clips(features=tokens[rows]))

    rows, episodes = np.arange(videos), drawn(videos, count)
    once = NUM_VIDEOS / videos * cpu_seconds(lambda: prepare_videos(rows, prepare))
    ready = PreparedVideos(method=method, tensors=prepare_videos(rows, prepare), rows=rows)
    few, anew = min(loop, 20), 3
    batched_s, cached_s = medians_in_turn(
        lambda: predict(ready, episodes, rows),
        lambda: _one_by_one(method, episodes, few, lambda some: _taken(ready.tensors, some)),
        rounds,
    )
    cached_s *= count / few
    anew_s = cpu_seconds(lambda: _one_by_one(method, episodes, anew, prepare)) * count / anew
    print("| I2ST | prepare, s | batched, s | one by one from prepared, s | ratio |", end="")
    print(" preparing each episode's clips, s | ratio |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {count:,} {WAY}-way {SHOT}-shot episodes | {once:.1f} | {batched_s:.2f} | "
        f"{cached_s:.1f} | {cached_s / batched_s:.0f}x | {anew_s:,.0f} | "
        f"{anew_s / (once + batched_s):.0f}x (expected 200x) |\n",
        flush=True,
    )


def _taken(tensors: Mapping[str, Tensor], rows: NDArray[np.int64]) -> dict[str, Tensor]:
    return {name: value[rows] for name, value in tensors.items()}


@torch.no_grad()
def _one_by_one(
    method: FewShotMethod,
    episodes: EpisodeSet,
    count: int,
    clips: Callable[[NDArray[np.int64]], Mapping[str, Tensor]],
) -> list[Tensor]:
    """Predictions of the first episodes, each scored by itself."""
    predicted = []
    for support, query in zip(episodes.support[:count], episodes.query[:count], strict=True):
        own = {k: v.unflatten(0, support.shape)[None] for k, v in clips(support.ravel()).items()}
        asked = {k: v[None] for k, v in clips(query.ravel()).items()}
        predicted.append(method.score(own, asked)[0].argmax(dim=-1))
    return predicted
