"""What time is worth: methods on classes that differ in motion alone.

    python -m benchmarks.motion [--out runs/benchmark-motion] [--seeds 3] [--only i2st,otam]

Prints Markdown. The shards are made (`benchmarks.motion_data`: the same eight states in another
order, so that neither the mean of a video nor the set of its frames tells its class); trained
methods train on 16 classes and keep their last weights; all are evaluated on the same 5-way
episodes of 10 other classes. Finished runs are kept; a second call goes on. Settings were chosen
once, on the val classes of seed 0.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.motion_data import MotionConfig, make_motion_shards
from i2st_model.checkpoints import Checkpoint
from i2st_model.evaluating.config import EvaluateConfig
from i2st_model.evaluation import evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method, train_statistics
from i2st_model.matching import unit
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.centred import CentredMethod
from i2st_model.methods.clips import Clips
from i2st_model.statistics import mean_accuracy
from i2st_model.training.config import TrainConfig
from i2st_model.training.run import train
from pipeline.shards.reader import ShardReader

SHOTS = (1, 5)
EPISODES = 2000
TRAIN_EPISODES = 9600


class FrameByFrame(CentredMethod):
    """Cosine of the frames in order, one with one: what order is worth where no clip is warped."""

    name = "frame_by_frame"

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, E) frame embeddings to one vector of length one."""
        return {"clip": unit(self.centred(clips.features).flatten(1))}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score ``clip``: (E, Q, N) cosines with the mean shot."""
        return torch.einsum("eqd,end->eqn", query["clip"], unit(support["clip"].mean(dim=2)))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row of the table."""

    title: str
    method: str = "i2st"
    train: dict[str, Any] | None = field(default_factory=dict)
    """Settings of its training; None for a method without."""


def _baseline(method: str, title: str) -> Entry:
    return Entry(title=f"{method}: {title}", method=method, train=None)


FAST: dict[str, Any] = {"slow_rate": 1e-3}
"""Attention learns at the projection's rate: at the default of 1e-5, chosen where time says
nothing, it stays as it begins."""
OTAM: dict[str, Any] = {"global_matching": "otam", "global_weight": 0.7}


def _random(title: str, network: Mapping[str, Any] | None = None, **settings: Any) -> Entry:
    """I2ST whose attention is not zero to begin with, at the faster rate."""
    network = {"attention_start": "random", **(network or {})}
    return Entry(title=title, train={**FAST, "network": network, **settings})


ENTRIES = {
    "protonet": _baseline("protonet", "mean of the frames"),
    "simpleshot": _baseline("simpleshot", "the same, centred and normalised"),
    "linear_probe": _baseline("linear_probe", "regression on the mean of the frames"),
    "bi_mhm": _baseline("bi_mhm", "set of frames"),
    "otam": _baseline("otam", "ordered alignment"),
    "frame_by_frame": _baseline("frame_by_frame", "first with first, and so on (here alone)"),
    "hyrsm": Entry(title="hyrsm: attention, then sets", method="hyrsm", train={}),
    "hyrsm_released": Entry(
        title="hyrsm, start=released", method="hyrsm", train={"options": {"start": "released"}}
    ),
    "trx": Entry(
        title="trx: ordered pairs and triplets", method="trx", train={"options": {"width": 128}}
    ),
    "sets": Entry(
        title="I2ST without attention and global term",
        train={"preset": "pool_linear", "network": {"global_weight": 0.0}},
    ),
    "i2st": Entry(title="I2ST as configured by default"),
    "fast": Entry(title="I2ST, attention at rate 1e-3", train=FAST),
    "random": _random("**I2ST, attention at rate 1e-3 from a random start**"),
    "spatial": _random("the same, spatial attention alone", {"attention_parts": "spatial"}),
    "temporal": _random("the same, temporal attention alone", {"attention_parts": "temporal"}),
    "no_positions": _random("the same, both, without positions", {"positions": "none"}),
    "masks_off": _random("the same, without mask supervision", masks="off"),
    "otam_only": Entry(
        title="I2ST without attention, global_matching=otam",
        train={"preset": "pool_linear", "network": OTAM},
    ),
    "random_otam": _random("I2ST, attention from a random start, global_matching=otam", OTAM),
}


def per_episode(
    entry: Entry, name: str, seed: int, shards: Path, out: Path, split: str
) -> list[NDArray[np.float64]]:
    """Accuracy of every episode at each shot; trains where that is left to do."""
    store = FeatureStore(ShardReader(shards))
    run = None
    if entry.train is not None:
        run = out / "runs" / f"{name}-{seed}"
        settings = {"episodes": TRAIN_EPISODES, "select": "last", **entry.train}
        train(TrainConfig(method=entry.method, seed=seed, **settings), store, run, resume=True)
    method, checkpoint = _method(entry, store, shards, run)
    return [
        evaluate(
            method,
            store,
            EvaluateConfig(shot=shot, episodes=EPISODES, split=split),
            checkpoint=checkpoint,
        ).per_episode
        for shot in SHOTS
    ]


def _method(
    entry: Entry, store: FeatureStore, shards: Path, run: Path | None
) -> tuple[FewShotMethod, Checkpoint | None]:
    if entry.method != FrameByFrame.name:
        return load_method(entry.method, store, shards=shards, run=run)
    method = FrameByFrame()
    method.fit(train_statistics(store, store.rows_of(store.classes_of("train"))))
    return method, None


def row(entry: Entry, name: str, seeds: int, shards: Path, out: Path, split: str) -> str:
    """One line of the table."""
    count = 1 if entry.train is None else seeds
    found = [per_episode(entry, name, seed, shards, out, split) for seed in range(count)]
    cells = [cell([one[place] for one in found]) for place in range(len(SHOTS))]
    return f"| {entry.title} | {' | '.join(cells)} |"


def cell(seeds: Sequence[NDArray[np.float64]]) -> str:
    """Mean over seeds, its half-width over their common episodes, and the spread over seeds."""
    mean = mean_accuracy(np.mean(seeds, axis=0))
    spread = f", s.d. {100 * np.std(np.mean(seeds, axis=1), ddof=1):.1f}" if len(seeds) > 1 else ""
    return f"{mean.mean:.1f} +/- {mean.half_width:.1f}{spread}"


def main() -> None:
    """Make the shards, train what is left, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-motion"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default=",".join(ENTRIES))
    parser.add_argument("--split", default="test")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    shards = flags.out / "shards"
    if not (shards / "index.json").is_file():
        make_motion_shards(shards, MotionConfig())
    print(f"| method (chance is 20) | {' | '.join(f'{shot}-shot' for shot in SHOTS)} |")
    print(f"|---|{'---|' * len(SHOTS)}", flush=True)
    for name in flags.only.split(","):
        line = row(ENTRIES[name], name, flags.seeds, shards, flags.out, flags.split)
        print(line, flush=True)


if __name__ == "__main__":
    main()
