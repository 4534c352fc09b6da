"""The method of a job, ready to evaluate."""

import time
from typing import Any

import torch

from benchmarks.jhmdb21.heads import HEADS
from benchmarks.jhmdb21.jobs import Job
from i2st_model.checkpoints import Checkpoint
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.i2st import I2st
from i2st_model.training.config import TrainConfig
from i2st_model.training.run import train
from i2st_model.training.setup import build_untrained


def ready_method(
    job: Job, store: FeatureStore
) -> tuple[FewShotMethod, Checkpoint | None, float | None]:
    """Load or train it; also the processor seconds of training, None for a run in several goes."""
    variant, split = job.variant, job.split
    if not variant.seeded:
        found = load_method(job.method, store, shards=job.shards, mean_classes=split.train)
        return *found, 0.0
    if variant.trained_as:
        return *_other_head(job, store), 0.0
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


def _other_head(job: Job, store: FeatureStore) -> tuple[FewShotMethod, Any]:
    trained, checkpoint = load_method(
        "i2st", store, shards=job.shards, run=job.base.run_folder, device="cpu"
    )
    assert isinstance(trained, I2st)
    method = HEADS[job.variant.method](trained)
    method.centre_on(store, torch.from_numpy(store.rows_of(list(job.split.train))))
    return method.eval(), checkpoint
