"""Drawing and evaluating 10,000 episodes, beside the loops of released code.

    python -m benchmarks.episodes [--rounds 5] [--episodes 10000] [--loop 40]

Prints Markdown. Shards of random features: 1,292 videos in 10 classes as in HMDB51's test split, 8
frames of 512 (CLIP ViT-B/16); for I2ST 7 x 7 tokens of 768. Our side is everything between the
shards and the predictions: drawing, reading, preparing, scoring. Released code, re-implemented in
`benchmarks.public_episodes`, has its clips encoded in memory; it is timed without its sampler, and
the sampler by itself. One thread; both in turn (A B A B), medians of process CPU time; loops are
extrapolated. Times on shared machines are noisy: quote the ratios. What was expected was written
down before the first run.
"""

import argparse
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.i2st_episodes import print_i2st
from benchmarks.public_episodes import (
    Head,
    public_bi_mhm,
    public_draw,
    public_episode,
    public_otam_of_means,
    public_otam_of_shots,
    public_protonet,
)
from benchmarks.random_videos import (
    NUM_CLASSES,
    SHOT,
    WAY,
    cpu_seconds,
    medians_in_turn,
    write_shards,
)
from i2st_model.drawing.class_videos import group_videos
from i2st_model.episodes import EpisodeSampler
from i2st_model.evaluating.episode_draws import draw_episodes
from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import train_statistics
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from pipeline.shards.reader import ShardReader


@dataclass(frozen=True, kw_only=True, slots=True)
class Rival:
    """One of our methods and the head of released code that computes the same."""

    method: str
    options: Mapping[str, Any]
    head: Head
    expected: float
    """Ratio without the sampler, before the first run."""


RIVALS = (
    Rival(method="protonet", options={}, head=public_protonet, expected=15),
    Rival(method="otam", options={}, head=public_otam_of_means, expected=35),
    Rival(
        method="otam",
        options={"shots": "after_matching"},
        head=public_otam_of_shots,
        expected=30,
    ),
    Rival(method="bi_mhm", options={}, head=public_bi_mhm, expected=6),
)


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--loop", type=int, default=40, help="episodes of a loop per round")
    parser.add_argument("--videos", type=int, default=67_013, help="SSv2-Full's train split")
    parser.add_argument("--i2st-videos", type=int, default=96, help="videos with tokens")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    print_draws(flags.videos)
    with tempfile.TemporaryDirectory() as name:
        shards = Path(name) / "shards" / "random"
        write_shards(shards)
        print_evaluations(FeatureStore(ShardReader(shards)), flags)
        print_i2st(flags.i2st_videos, flags.episodes, flags.loop, flags.rounds)
        print_processes(Path(name), flags)


def print_draws(num_videos: int) -> None:
    """Table of microseconds per drawn episode."""
    print(f"| drawing from {num_videos:,} videos in 64 classes | prepare, ms | one episode, us |")
    print("|---|---|---|")
    rng = np.random.default_rng(0)
    index = rng.integers(0, 64, size=num_videos)
    groups = [f"{group}" for group in rng.integers(0, num_videos // 4, size=num_videos)]
    for disjoint in (False, True):
        for shot in (1, SHOT):
            start = time.process_time()
            videos = group_videos(index, groups, range(64), [str(n) for n in range(64)])
            sampler = EpisodeSampler(videos, way=WAY, shot=shot, disjoint_groups=disjoint)
            middle = time.process_time()
            sampler.batch(0, 2000)
            end = time.process_time()
            kind = "groups disjoint" if disjoint else "uniform"
            print(
                f"| {WAY}-way {shot}-shot, {kind} | {1e3 * (middle - start):.0f} | "
                f"{1e6 * (end - middle) / 2000:.1f} |"
            )
    start = time.process_time()
    for _ in range(5):
        public_draw(index.tolist(), 64, WAY, SHOT, 1)
    print(
        f"| {WAY}-way {SHOT}-shot, released code | - | {2e5 * (time.process_time() - start):,.0f} |"
    )
    print(flush=True)


def print_evaluations(store: FeatureStore, flags: argparse.Namespace) -> None:
    """Table of CPU seconds of evaluations beside the loops of released code."""
    config = EvaluateConfig(shot=SHOT, episodes=flags.episodes, device="cpu")
    few = draw_episodes(store, config).batch(0, flags.loop)
    rows = store.rows_of(store.classes_of("test"))
    clips, train_rows = store.frame_embedding(rows), store.rows_of(store.classes_of("train"))
    mean = store.mean_embedding(train_rows)
    labels = store.reader.class_index[rows].tolist()

    def draws() -> None:
        first = min(labels)
        for _ in range(flags.loop):
            public_draw([label - first for label in labels], NUM_CLASSES, WAY, SHOT, 1)

    scale = flags.episodes / flags.loop
    sampler_s = scale * statistics.median(cpu_seconds(draws) for _ in range(flags.rounds))
    print(
        f"| {flags.episodes:,} {WAY}-way {SHOT}-shot episodes | ours, s | released loop, s |",
        end="",
    )
    print(f" ratio (expected) | with its sampler (+ {sampler_s:.1f} s) | same predictions |")
    print("|---|---|---|---|---|---|")
    for rival in RIVALS:
        method = get_method(rival.method, **rival.options)
        method.fit(train_statistics(store, train_rows))
        seen = clips - mean if method.needs_train_mean else clips
        predicted: dict[str, Any] = {}

        def ours(method: FewShotMethod = method, into: dict = predicted) -> None:
            into["ours"] = evaluate(method, store, config).result.predicted

        def theirs(head: Head = rival.head, seen: Tensor = seen, into: dict = predicted) -> None:
            into["theirs"] = [
                public_episode(head, seen, torch.from_numpy(s), torch.from_numpy(q))
                for s, q in zip(few.support, few.query, strict=True)
            ]

        ours_s, loop_s = medians_in_turn(ours, theirs, flags.rounds)
        loop_s *= scale
        same = predicted["ours"][: flags.loop, :, 0] == torch.stack(predicted["theirs"]).numpy()
        words = ", ".join(rival.options.values())
        print(
            f"| {rival.method}{f' ({words})' if words else ''} | {ours_s:.2f} | {loop_s:.1f} | "
            f"{loop_s / ours_s:.0f}x ({rival.expected:.0f}x) | "
            f"{(loop_s + sampler_s) / ours_s:.0f}x | {100 * same.mean():.1f} % |",
            flush=True,
        )
    print()


def print_processes(folder: Path, flags: argparse.Namespace) -> None:
    """Table of wall and CPU seconds of whole commands, start of Python and torch included."""
    every = ",".join(dict.fromkeys(rival.method for rival in RIVALS))
    print("| `i2st evaluate --shot 5`, whole process | wall, s | CPU, s |")
    print("|---|---|---|")
    for methods in (*every.split(","), every):
        asked = ["--method", methods, "--shot", str(SHOT), "--episodes", str(flags.episodes)]
        spent = [_process([*asked, "--device", "cpu"], folder) for _ in range(flags.rounds)]
        wall, cpu = (statistics.median(column) for column in zip(*spent, strict=True))
        print(f"| {methods} | {wall:.1f} | {cpu:.1f} |", flush=True)


def _process(words: list[str], folder: Path) -> tuple[float, float]:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    program = [sys.executable, "-c", "import cli; cli.main()", "evaluate", *words]
    subprocess.run(program, cwd=folder, check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
