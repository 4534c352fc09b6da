"""Doing a job: train where needed, evaluate at every shot, leave the result whole."""

import json
import time
from typing import Any

import torch

from benchmarks.jhmdb21.heads import BESIDE, Beside, FrozenBoth
from benchmarks.jhmdb21.jobs import QUERIES, SHOTS, Job
from i2st_model.checkpoints import Checkpoint
from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method, train_statistics
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.i2st import PROBED
from i2st_model.records.results import save_results
from i2st_model.training.config import TrainConfig
from i2st_model.training.run import train
from i2st_model.training.setup import build_untrained
from pipeline.shards.reader import ShardReader


def run_job(job: Job) -> str:
    """Do a job; return what to print."""
    torch.set_num_threads(1)
    store = FeatureStore(ShardReader(job.shards))
    method, checkpoint, train_seconds = ready_method(job, store)
    start, found = time.process_time(), []
    for shot in SHOTS:
        config = EvaluateConfig(
            classes=job.split.test,
            shot=shot,
            queries=QUERIES,
            episodes=job.episodes,
            disjoint_groups=True,
            device="cpu",
        )
        found.append(evaluate(method, store, config, checkpoint=checkpoint))
    accuracies = [one.accuracy.mean for one in found]
    notes = {
        "accuracy": accuracies,
        "train_seconds": train_seconds,
        "evaluate_seconds": time.process_time() - start,
        "settings": job.settings if job.variant.seeded else {},
    }
    job.result.parent.mkdir(parents=True, exist_ok=True)
    job.notes.write_text(json.dumps(notes))
    save_results(job.result, [one.result for one in found])
    return f"{job.name} {' '.join(f'{value:.2f}' for value in accuracies)}"


def ready_method(
    job: Job, store: FeatureStore
) -> tuple[FewShotMethod, Checkpoint | None, float | None]:
    """Load or train it; also the processor seconds of training, None for a run in several goes."""
    variant, split = job.variant, job.split
    if variant.method == FrozenBoth.name:
        method = FrozenBoth()
        method.fit(train_statistics(store, store.rows_of(list(split.train))))
        return method.eval(), None, 0.0
    if not variant.seeded:
        found = load_method(job.method, store, shards=job.shards, mean_classes=split.train)
        return *found, 0.0
    if variant.trained_as:
        return *other_head(job, store), 0.0
    config = TrainConfig(**job.settings, classes=split.train)
    if not variant.trained:
        return get_method("i2st", network=build_untrained(config, store)), None, 0.0
    seconds = _train(config, store, job)
    found = load_method(job.method, store, shards=job.shards, run=job.run_folder, device="cpu")
    return *found, seconds


def _train(config: TrainConfig, store: FeatureStore, job: Job) -> float | None:
    start = time.process_time()
    fresh = not job.run_folder.exists()
    train(config, store, job.run_folder, resume=True)
    return time.process_time() - start if fresh else None


def other_head(job: Job, store: FeatureStore) -> tuple[FewShotMethod, Any]:
    """Read the run of another job by a head of another kind; also its checkpoint."""

    def loaded(name: str) -> tuple[FewShotMethod, Checkpoint | None]:
        run, classes = job.base.run_folder, job.split.train
        return load_method(
            name, store, shards=job.shards, run=run, mean_classes=classes, device="cpu"
        )

    beside = BESIDE[job.variant.method]
    if beside is None:
        return loaded(PROBED)
    trained, checkpoint = loaded("i2st")
    return Beside(trained, loaded(beside)[0]).eval(), checkpoint
