"""Cost of drawing episodes, and of evaluating them in batches beside one by one.

    python -m benchmarks.episodes [--videos 67013] [--episodes 10000] [--loop 60]

Prints Markdown. Features are random: 1,292 videos in 10 classes as in HMDB51's test split, 8 frames
of 512 (CLIP ViT-B/16), and 7 x 7 tokens of 768 for I2ST. "Cached loop" evaluates episode by episode
from the same prepared videos; "preparing loop" also prepares the clips of each episode anew, as
the released few-shot codes do. Loops are extrapolated from ``--loop`` episodes, and all three ways
are checked to predict the same first. CPU seconds on one thread; noisy where others share the
machine: quote the ratios.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.class_videos import group_videos
from i2st_model.config import preset
from i2st_model.episodes import EpisodeSampler
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.network import build_network
from i2st_model.scoring import (
    episode_batches,
    episodes_at_a_time,
    places_of,
    predict_episodes,
    prepare_videos,
)

NUM_VIDEOS, NUM_CLASSES, FRAMES, EMBEDDING = 1292, 10, 8, 512
GRID, CHANNELS = 7, 768
WAY, SHOT = 5, 5


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=67_013, help="SSv2-Full's train split")
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--loop", type=int, default=60, help="episodes of the loops")
    parser.add_argument("--i2st-videos", type=int, default=96, help="videos with tokens")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    print_draws(flags.videos)
    print_evaluations(flags.episodes, flags.loop, flags.i2st_videos)


@contextmanager
def cpu_seconds(into: dict[str, float], name: str) -> Iterator[None]:
    """Add the CPU time of the block to ``into[name]``."""
    start = time.process_time()
    yield
    into[name] = into.get(name, 0.0) + time.process_time() - start


def print_draws(num_videos: int) -> None:
    """Table of microseconds per drawn episode."""
    print(f"| drawing from {num_videos:,} videos in 64 classes | prepare, ms | one episode, us |")
    print("|---|---|---|")
    rng = np.random.default_rng(0)
    index = rng.integers(0, 64, size=num_videos)
    groups = [f"{group}" for group in rng.integers(0, num_videos // 4, size=num_videos)]
    for disjoint in (False, True):
        for shot in (1, 5):
            spent: dict[str, float] = {}
            with cpu_seconds(spent, "prepare"):
                videos = group_videos(index, groups, range(64), [str(n) for n in range(64)])
                sampler = EpisodeSampler(videos, way=WAY, shot=shot, disjoint_groups=disjoint)
            with cpu_seconds(spent, "draw"):
                sampler.batch(0, 2000)
            kind = "groups disjoint" if disjoint else "uniform"
            print(
                f"| 5-way {shot}-shot, {kind} | {1e3 * spent['prepare']:.0f} | "
                f"{1e6 * spent['draw'] / 2000:.0f} |"
            )
    print()


def print_evaluations(episodes: int, loop: int, i2st_videos: int) -> None:
    """Table of CPU seconds per ``episodes`` 5-way 5-shot episodes."""
    print(
        f"| {episodes:,} 5-way 5-shot episodes | prepare, s | batched, s | cached loop, s |",
        end="",
    )
    print(" preparing loop, s | ratios |")
    print("|---|---|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(NUM_VIDEOS, FRAMES, EMBEDDING, generator=generator)
    for name in ("protonet", "otam", "bi_mhm"):
        method = get_method(name)
        method.fit(TrainStatistics(embedding_dim=EMBEDDING, mean_embedding=torch.zeros(EMBEDDING)))
        print_evaluation(method, embeddings, episodes, loop)
    config = preset("i2st", token_dim=CHANNELS, grid=GRID)
    network = build_network(config)
    network.fit_stem(torch.randn(2000, CHANNELS, generator=generator))
    # Fewer videos for want of memory; the time to prepare is scaled to NUM_VIDEOS.
    tokens = torch.randn(i2st_videos, FRAMES, GRID**2, CHANNELS, generator=generator)
    print_evaluation(get_method("i2st", network=network), tokens, episodes, max(3, loop // 10))


def print_evaluation(method: FewShotMethod, features: Tensor, episodes: int, loop: int) -> None:
    """One row."""
    rows = np.arange(len(features))
    videos = group_videos(
        rows % NUM_CLASSES, [""] * len(rows), range(NUM_CLASSES), [str(n) for n in range(10)]
    )
    sampler = EpisodeSampler(videos, way=WAY, shot=SHOT)
    spent: dict[str, float] = {}

    def prepare(some: NDArray) -> Mapping[str, Tensor]:
        return method.prepare(Clips(features=features[some]))

    with torch.no_grad():
        with cpu_seconds(spent, "prepare"):
            prepared = prepare_videos(rows, prepare)
        spent["prepare"] *= NUM_VIDEOS / len(features)
        with cpu_seconds(spent, "batched"):
            batched = _batched(method, prepared, sampler, episodes)
        one_by_one: dict[str, Callable[[NDArray], Mapping[str, Tensor]]] = {
            "cached": lambda some: {key: value[some] for key, value in prepared.items()},
            "anew": prepare,
        }
        for name, make in one_by_one.items():
            with cpu_seconds(spent, name):
                predicted = [_one(method, make, sampler, number) for number in range(loop)]
            spent[name] *= episodes / loop
            assert np.mean(np.stack(predicted) == batched[:loop]) > 0.999
    whole = spent["prepare"] + spent["batched"]
    print(
        f"| {method.name} | {spent['prepare']:.1f} | {spent['batched']:.1f} | "
        f"{spent['cached']:.1f} | {spent['anew']:.0f} | "
        f"{spent['cached'] / spent['batched']:.1f}x, {spent['anew'] / whole:.0f}x |",
        flush=True,
    )


def _batched(
    method: FewShotMethod,
    prepared: Mapping[str, Tensor],
    sampler: EpisodeSampler,
    episodes: int,
) -> NDArray[np.int64]:
    num_videos = len(next(iter(prepared.values())))
    places = places_of(np.arange(num_videos), num_videos, torch.device("cpu"))
    size = episodes_at_a_time(prepared, WAY * (SHOT + 1))
    parts = [
        predict_episodes(episode, places, prepared, method.score).predicted
        for episode in episode_batches(sampler, episodes, size)
    ]
    return np.concatenate(parts)


def _one(
    method: FewShotMethod,
    prepare: Callable[[NDArray], Mapping[str, Tensor]],
    sampler: EpisodeSampler,
    number: int,
) -> NDArray[np.int64]:
    episode = sampler.episode(number)
    query = prepare(episode.query.ravel())
    support = prepare(episode.support.ravel())
    logits = method.score(
        {key: value.unflatten(0, (WAY, SHOT)).unsqueeze(0) for key, value in support.items()},
        {key: value.unsqueeze(0) for key, value in query.items()},
    )
    return logits[0].argmax(dim=-1).view(WAY, -1).numpy()


if __name__ == "__main__":
    main()
