"""I2ST and its rivals on real videos: JHMDB-21, frozen EfficientNet-Lite0 features, CPU.

    python -m benchmarks.jhmdb21 [--data ../shared/data/jhmdb21] [--out runs/benchmark-jhmdb21]
                                 [--seeds 3] [--jobs 2] [--variants i2st,linear]

One command runs all three steps: extract (true masks; and, apart, noisy DeepLabV3 masks), train
every variant on every split with every seed, evaluate all on the same episodes. It prints Markdown
and writes it between the marks in docs/benchmarks.md. Finished runs are kept; a second call goes
on.

Splits: the fixed one (12 train, 5 test classes) and three of class cross-validation inside the
16 train and val classes (11 train, 5 test). Weights are the last of a fixed schedule, so nothing is
selected. Support and query come from different source videos for the whole episode.
"""

import argparse
import csv
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parent.parent
DOCS = REPOSITORY / "docs" / "benchmarks.md"
BEGIN, END = "<!-- jhmdb21: begin -->", "<!-- jhmdb21: end -->"
SHOTS = (1, 3, 5)
EPISODES, QUERIES = 2000, 3
TRAIN_EPISODES = 9600
NUM_FOLDS = 3
TEST_CLASSES = 5
BASELINES = ("protonet", "otam", "bi_mhm")
REFERENCE = "bi_mhm"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One trained model: what the table calls it, and its train settings."""

    title: str
    settings: dict[str, Any]
    shards: str = "masks"
    untrained: bool = False


VARIANTS = {
    "linear": Variant(
        title="plain projection, trained the same way", settings={"preset": "linear"}
    ),
    "step0": Variant(title="I2ST at step 0", settings={}, untrained=True),
    "i2st": Variant(title="**I2ST**, true masks", settings={}),
    "i2st_deeplab": Variant(title="I2ST, DeepLabV3 masks", settings={}, shards="masks_deeplab"),
    "i2st_off": Variant(title="I2ST without mask supervision", settings={"masks": "off"}),
    "i2st_shuffled": Variant(title="I2ST, shuffled masks", settings={"masks": "shuffled"}),
    "i2st_attention": Variant(
        title="I2ST, instances=masked_attention",
        settings={"network": {"instances": "masked_attention"}},
    ),
    "pool_linear": Variant(
        title="I2ST without spatial and temporal attention", settings={"preset": "pool_linear"}
    ),
}

COMPARISONS = {
    "mask supervision: true masks against none": ("i2st", "i2st_off"),
    "right masks: true against shuffled": ("i2st", "i2st_shuffled"),
    "noisy masks: DeepLabV3 against none": ("i2st_deeplab", "i2st_off"),
    "I2ST against a plain projection": ("i2st", "linear"),
    "training: I2ST against its step 0": ("i2st", "step0"),
    "spatial and temporal attention: with against without": ("i2st", "pool_linear"),
}


@dataclass(frozen=True, kw_only=True)
class Split:
    """Classes that are trained on and, disjoint from them, evaluated."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]


def splits(classes: dict[str, list[str]]) -> list[Split]:
    """Return the fixed split, and folds of the train and val classes."""
    both = np.array(sorted(classes["train"] + classes["val"]))
    order = np.random.default_rng(0).permutation(both)
    found = [Split(name="fixed", train=tuple(classes["train"]), test=tuple(classes["test"]))]
    for fold in range(NUM_FOLDS):
        test = order[fold * TEST_CLASSES : (fold + 1) * TEST_CLASSES]
        train = [name for name in both.tolist() if name not in set(test.tolist())]
        found.append(
            Split(name=f"fold{fold}", train=tuple(train), test=tuple(sorted(test.tolist())))
        )
    return found


def write_table(data: Path, out: Path) -> tuple[Path, dict[str, list[str]]]:
    """Write the table of videos; val classes become train ones, so that folds have their masks."""
    with open(data / "clips.csv", newline="", encoding="utf-8") as file:
        clips = list(csv.DictReader(file))
    classes: dict[str, list[str]] = {}
    for split in ("train", "val", "test"):
        classes[split] = sorted({clip["class"] for clip in clips if clip["split"] == split})
    table = out / "jhmdb21.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class", "split", "group"))
        for clip in clips:
            split = "test" if clip["split"] == "test" else "train"
            path = f"{clip['class']}/{clip['clip']}.avi"
            writer.writerow((path, clip["class"], split, clip["source_group"]))
    return table, classes


def extract_all(data: Path, out: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Extract once per source of masks; return the classes and the digests."""
    from pipeline.datasets import open_dataset
    from pipeline.extract import extract
    from pipeline.extraction.plan import ExtractConfig

    out.mkdir(parents=True, exist_ok=True)
    table, classes = write_table(data, out)
    source = open_dataset(table=table, videos=data / "videos")
    digests = []
    for masks in ("masks", "masks_deeplab"):
        config = ExtractConfig(
            dataset="jhmdb21",
            videos=source.root,
            out=out / "shards" / masks,
            encoder="efficientnet-lite0",
            segmenter="precomputed",
            masks=data / masks,
        )
        report = extract(config, source.manifest, source.videos)
        digests.append(f"{masks} {report.digest}")
    return classes, digests


@dataclass(frozen=True, kw_only=True)
class Job:
    """One model on one split, evaluated at every shot."""

    model: str
    split: Split
    seed: int
    out: Path

    @property
    def shards(self) -> Path:
        """Folder of the features it is trained on and evaluated with."""
        variant = VARIANTS.get(self.model)
        return self.out / "shards" / (variant.shards if variant else "masks")

    def config(self) -> Any:
        """Train settings; None for a baseline."""
        from i2st_model.training.config import TrainConfig

        variant = VARIANTS.get(self.model)
        if variant is None:
            return None
        fixed = {"episodes": TRAIN_EPISODES, "select": "last"}
        settings = {**fixed, **variant.settings}
        return TrainConfig(**settings, seed=self.seed, classes=self.split.train)

    @property
    def name(self) -> str:
        """Readable, and another one for other settings, classes or features."""
        from pipeline.shards.index import ShardIndex

        config = self.config()
        decides = {
            "train": config and config.to_dict(),
            "test": self.split.test,
            "protocol": [EPISODES, QUERIES, SHOTS],
            "digest": ShardIndex.load(self.shards).digest,
        }
        key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.model}-{self.split.name}-{self.seed}-{key}"

    @property
    def result(self) -> Path:
        """Where its per-episode accuracies go."""
        return self.out / "results" / f"{self.name}.npz"


def run_job(job: Job) -> Path:
    """Train where needed, evaluate, and keep the accuracy of every episode."""
    import torch

    from i2st_model.evaluation import EvaluateConfig, evaluate
    from i2st_model.features import FeatureStore
    from pipeline.shards.reader import ShardReader

    torch.set_num_threads(1)
    if job.result.is_file():
        return job.result
    store = FeatureStore(ShardReader(job.shards))
    method, checkpoint = _method(job, store)
    found = {}
    for shot in SHOTS:
        config = EvaluateConfig(
            classes=job.split.test,
            shot=shot,
            queries=QUERIES,
            episodes=EPISODES,
            disjoint_groups=True,
        )
        evaluation = evaluate(method, store, config, checkpoint=checkpoint)
        found[str(shot)] = evaluation.per_episode
    job.result.parent.mkdir(parents=True, exist_ok=True)
    partial = job.result.with_suffix(".tmp")
    with open(partial, "wb") as file:
        np.savez(file, **found)
    partial.replace(job.result)
    return job.result


def _method(job: Job, store: Any) -> tuple[Any, Any]:
    from i2st_model.load_method import load_method
    from i2st_model.methods import get_method
    from i2st_model.training.run import train
    from i2st_model.training.setup import build_untrained

    config = job.config()
    if config is None:
        return load_method(job.model, store, shards=job.shards, mean_classes=job.split.train)
    if VARIANTS[job.model].untrained:
        return get_method("i2st", network=build_untrained(config, store)), None
    run = job.out / "runs" / job.name
    train(config, store, run, resume=True)
    return load_method("i2st", store, shards=job.shards, run=run)


def jobs(models: Sequence[str], every: Sequence[Split], seeds: int, out: Path) -> Iterator[Job]:
    """All jobs, the baselines once and trained models once per seed."""
    for model in models:
        for split in every:
            for seed in range(seeds if model in VARIANTS else 1):
                yield Job(model=model, split=split, seed=seed, out=out)


def load(job: Job, shot: int) -> NDArray[np.float64]:
    """(episodes,) accuracies of a finished job."""
    with np.load(job.result, allow_pickle=False) as found:
        return np.asarray(found[str(shot)], dtype=np.float64)


def mean_over_seeds(model: str, split: Split, shot: int, seeds: int, out: Path) -> NDArray:
    """(episodes,) accuracy of each episode, mean over seeds."""
    return np.mean([load(job, shot) for job in jobs([model], [split], seeds, out)], axis=0)


def difference(
    model: str, other: str, group: Sequence[Split], shot: int, seeds: int, out: Path
) -> str:
    """Paired difference in points, mean over splits, with its half-width."""
    from i2st_model.statistics import paired_difference

    paired = [
        paired_difference(*(mean_over_seeds(m, split, shot, seeds, out) for m in (model, other)))
        for split in group
    ]
    half_width = float(np.sqrt(sum(one.half_width**2 for one in paired))) / len(group)
    return f"{np.mean([one.mean for one in paired]):+.2f} +/- {half_width:.2f}"


def cell(model: str, group: Sequence[Split], shot: int, seeds: int, out: Path) -> str:
    """Mean accuracy, and the paired difference to the reference."""
    each = [mean_over_seeds(model, split, shot, seeds, out).mean() for split in group]
    mean = f"{100 * np.mean(each):.1f}"
    if model == REFERENCE:
        return mean
    return f"{mean} ({difference(model, REFERENCE, group, shot, seeds, out)})"


def seed_spread(model: str, group: Sequence[Split], shot: int, seeds: int, out: Path) -> str:
    """Standard deviation over seeds of one split's accuracy, root mean square over splits."""
    if model not in VARIANTS or seeds < 2:
        return "-"
    deviations = [
        np.std([100 * load(job, shot).mean() for job in jobs([model], [split], seeds, out)], ddof=1)
        for split in group
    ]
    return f"{float(np.sqrt(np.mean(np.square(deviations)))):.2f}"


def markdown(models: Sequence[str], every: Sequence[Split], seeds: int, out: Path) -> str:
    """Both tables: the fixed split and class cross-validation."""
    groups = {
        "Fixed split (12 train, 5 test classes)": every[:1],
        f"Class cross-validation (mean of {NUM_FOLDS} folds, 11 train, 5 test classes)": every[1:],
    }
    lines = []
    for title, group in groups.items():
        lines += [f"**{title}**", ""]
        lines += [
            "| model | 1-shot | 3-shot | 5-shot | seed s.d., 1-shot |",
            "|---|---|---|---|---|",
        ]
        for model in models:
            name = VARIANTS[model].title if model in VARIANTS else model
            cells = [cell(model, group, shot, seeds, out) for shot in SHOTS]
            spread = seed_spread(model, group, 1, seeds, out)
            lines.append(f"| {' | '.join([name, *cells, spread])} |")
        lines += ["", "| paired difference | 1-shot | 3-shot | 5-shot |", "|---|---|---|---|"]
        for what, (model, other) in COMPARISONS.items():
            if model in models and other in models:
                cells = [difference(model, other, group, shot, seeds, out) for shot in SHOTS]
                lines.append(f"| {' | '.join([what, *cells])} |")
        lines.append("")
    return "\n".join(lines)


def write_docs(text: str) -> None:
    """Replace what stands between the marks in docs/benchmarks.md."""
    docs = DOCS.read_text(encoding="utf-8")
    before, _, rest = docs.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Run what is left, print the tables and write them into the docs."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    data = Path(os.environ.get("I2ST_REAL_DATA", REPOSITORY.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=data / "jhmdb21")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark-jhmdb21"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--no-docs", action="store_true")
    asked = parser.parse_args()
    classes, digests = extract_all(asked.data, asked.out)
    models = [*BASELINES, *asked.variants.split(",")]
    every = splits(classes)
    todo = list(jobs(models, every, asked.seeds, asked.out))
    with ProcessPoolExecutor(asked.jobs) as pool:
        for number, result in enumerate(pool.map(run_job, todo), start=1):
            print(f"{number}/{len(todo)} {result.stem}", flush=True)
    text = markdown(models, every, asked.seeds, asked.out)
    text += f"\nShards: {'; '.join(digests)}."
    (asked.out / "table.json").write_text(json.dumps({"digests": digests, "table": text}))
    print(text)
    if not asked.no_docs:
        write_docs(text)


if __name__ == "__main__":
    main()
