"""Episodes trained per second: pools shared by their episodes, beside one episode at a time.

    python -m benchmarks.training [--rounds 5] [--methods i2st,hyrsm,trx]

Prints Markdown. Shards of random features: 31 train classes of 20 videos as in HMDB51, 8 frames of
7 x 7 tokens of 256 and embeddings of 512. Both sides take the same step of 64 5-way 1-shot episodes
of 2 queries per class with the same learner, and end in one update. Ours encodes one pool of all
classes and forms the episodes among it; the other, as released code does, encodes the clips of each
episode for it alone and adds up 64 gradients. One thread, in turn (A B A B); medians of process CPU
time, which other users of the machine disturb less than wall time: quote the ratios. What was
expected was written down before the first run.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.random_videos import medians_in_turn, random_video
from i2st_model.features import FeatureStore
from i2st_model.training.config import TrainConfig
from i2st_model.training.learners import build_learner
from i2st_model.training.ranks import Ranks
from i2st_model.training.setup import NO_ROWS, pool_sampler
from i2st_model.training.step import build_optimizer, take_step
from i2st_model.training.step_pools import step_pools
from pipeline.shards.committed import finish
from pipeline.shards.reader import ShardReader
from pipeline.shards.writer import ShardWriter

CLASSES, VIDEOS, GRID, CHANNELS = 31, 20, 7, 256
EPISODES = 64
EXPECTED = {"i2st": 8.0, "hyrsm": 3.0, "trx": 1.3}
"""Ratios, before the first run: 960 clips are encoded instead of 93, where encoding is nearly all
of i2st's cost and little of TRX's, whose tuples meet in every episode anew."""


def main() -> None:
    """Print one row per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", default=",".join(EXPECTED))
    flags = parser.parse_args()
    torch.set_num_threads(1)
    print("| method | episodes/s, shared pool | episodes/s, one at a time | ratio | expected |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder) / "shards")
        store = FeatureStore(ShardReader(Path(folder) / "shards"))
        for method in flags.methods.split(","):
            print_method(method, store, flags.rounds)


def print_method(method: str, store: FeatureStore, rounds: int) -> None:
    """Time both ways of one method and print its row."""
    shared = TrainConfig(method=method, masks="off", device="cpu", episodes_per_step=EPISODES)
    single = replace(shared, pools_per_step=EPISODES, pool_classes=shared.way)
    ours, theirs = medians_in_turn(step_of(shared, store), step_of(single, store), rounds)
    expected = EXPECTED.get(method, float("nan"))
    print(
        f"| {method} | {EPISODES / ours:.1f} | {EPISODES / theirs:.1f} | {theirs / ours:.1f} "
        f"| {expected} |",
        flush=True,
    )


def step_of(config: TrainConfig, store: FeatureStore) -> Callable[[], object]:
    """A function that takes the next step of a run, from drawing its pools to the update."""
    sampler = pool_sampler(config, store)
    torch.manual_seed(0)
    device = torch.device("cpu")
    learner = build_learner(config, store, classes=sampler.videos, device=device)
    learner.begin()
    learner.open(NO_ROWS)
    learner.network.train()
    optimizer = build_optimizer(config, learner)
    steps = iter(range(config.episodes // config.episodes_per_step))

    def take() -> object:
        pools = step_pools(config, next(steps))
        batches = (
            learner.batch(sampler.pool(number, episodes), number)
            for number, episodes in zip(pools.numbers, pools.episodes, strict=True)
        )
        return take_step(config, learner, optimizer, batches, pools=pools, ranks=Ranks())

    return take


def write_shards(folder: Path) -> None:
    """Write random features of CLASSES train classes."""
    names = [f"class {number:02d}" for number in range(CLASSES)]
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, {}, class_names=names)
    rng = np.random.default_rng(0)
    for shard, name in enumerate(names):
        rows = [
            random_video(rng, "train", name, n, grid=GRID, channels=CHANNELS) for n in range(VIDEOS)
        ]
        writer.write(shard, rows, [])
    finish(folder, {"name": "random", "classes": {"train": names, "val": [], "test": []}}, {})


if __name__ == "__main__":
    main()
