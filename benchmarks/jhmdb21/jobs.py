"""One job: a variant on a split with a seed, trained where needed and evaluated at every shot."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.jhmdb21.data import Split, inner_splits
from benchmarks.jhmdb21.variants import TRAIN_EPISODES, VARIANTS, Variant, merged

SHOTS = (1, 3, 5)
EPISODES, INNER_EPISODES, QUERIES = 2000, 1000, 3


@dataclass(frozen=True, kw_only=True)
class Job:
    """One variant on one split with one seed."""

    key: str
    variant: Variant
    split: Split
    seed: int
    out: Path
    episodes: int = EPISODES

    @property
    def shards(self) -> Path:
        """Folder of the features it is trained on and evaluated with."""
        return self.out / "shards" / self.variant.shards

    @property
    def trials(self) -> list[list["Job"]]:
        """Jobs inside the train classes, by candidate."""
        return [
            [
                Job(
                    key=f"{self.key}.{number}",
                    variant=self.variant.with_candidate(number),
                    split=inner,
                    seed=0,
                    out=self.out,
                    episodes=INNER_EPISODES,
                )
                for inner in inner_splits(self.split)
            ]
            for number in range(len(self.variant.candidates))
        ]

    @property
    def needs(self) -> list["Job"]:
        """Jobs that have to be done before."""
        if self.variant.trained_as:
            return [self.base]
        return [trial for trials in self.trials for trial in trials]

    @property
    def base(self) -> "Job":
        """The job whose run it reads in another way."""
        name = self.variant.trained_as
        return Job(key=name, variant=VARIANTS[name], split=self.split, seed=self.seed, out=self.out)

    @property
    def chosen(self) -> int:
        """The candidate that is best on the trials, mean over folds and shots."""
        means = [
            np.mean([trial.accuracies() for trial in of_candidate]) for of_candidate in self.trials
        ]
        return int(np.argmax(means))

    @property
    def settings(self) -> dict[str, Any]:
        """Train settings of its run, once the trials are done."""
        if self.variant.trained_as:
            return self.base.settings
        of_variant = self.variant.settings
        if self.variant.candidates:
            of_variant = self.variant.with_candidate(self.chosen).settings
        basis = {"episodes": TRAIN_EPISODES, "select": "last", "device": "cpu"}
        return {**merged(basis, of_variant), "method": self.method, "seed": self.seed}

    @property
    def method(self) -> str:
        """What is trained."""
        return self.base.method if self.variant.trained_as else self.variant.method

    @property
    def name(self) -> str:
        """Readable, and another one for other settings, classes, features or episodes."""
        decides = {
            "settings": merged({"episodes": TRAIN_EPISODES}, self.variant.settings),
            "candidates": [dict(one) for one in self.variant.candidates],
            "classes": [self.split.train, self.split.test],
            "protocol": [self.episodes, QUERIES, SHOTS],
            "digest": digest_of(self.shards),
        }
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:8]
        return f"{self.key}-{self.split.name}-{self.seed}-{key}"

    @property
    def result(self) -> Path:
        """What it leaves."""
        return self.out / "results" / f"{self.name}.safetensors"

    @property
    def notes(self) -> Path:
        """Seconds and chosen settings, beside the result and written before it."""
        return self.result.with_suffix(".json")

    @property
    def run_folder(self) -> Path:
        """Where it is trained."""
        return self.out / "runs" / self.name

    @property
    def done(self) -> bool:
        """Whether its result is there."""
        return (self.shards / "index.json").is_file() and self.result.is_file()

    def accuracies(self) -> list[float]:
        """Percent by shot, of a job that is done."""
        found: list[float] = json.loads(self.notes.read_text())["accuracy"]
        return found


@cache
def digest_of(shards: Path) -> str:
    """Digest of the features; it does not change while the benchmark runs."""
    from pipeline.shards.index import ShardIndex

    return ShardIndex.load(shards).digest


def outer_jobs(keys: Sequence[str], splits: Sequence[Split], seeds: int, out: Path) -> list[Job]:
    """All jobs of the table, the important ones first; methods without seeds once."""
    found = [
        Job(key=key, variant=VARIANTS[key], split=split, seed=seed, out=out)
        for key in keys
        for split in splits
        for seed in range(seeds if VARIANTS[key].seeded else 1)
    ]
    return sorted(found, key=lambda job: (job.variant.rank + 3 * (job.seed > 0), job.seed))
