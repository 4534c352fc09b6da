"""Training by episodes, from shards to a checkpoint; a killed run goes on to the same weights.

On one CPU thread the weights are a function of the shards' content and the config, bit for bit and
across interruptions. On more threads, or on a GPU, sums are made in no fixed order and the last
bits differ.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from i2st_model.checkpoints import CheckpointInfo, save_checkpoint
from i2st_model.runs import CHECKPOINT_NAME, STATE_NAME, StepLog, locked
from i2st_model.training.config import TrainConfig, TrainProgress, TrainReport
from i2st_model.training.learners import build_learner
from i2st_model.training.resume import finished_report, is_resumed, record_run
from i2st_model.training.schedules import num_steps
from i2st_model.training.setup import (
    INITIAL,
    own_torch,
    pool_sampler,
    torch_seed,
)
from i2st_model.training.state import Best, load_state, save_state
from i2st_model.training.step import StepResult, build_optimizer, take_step
from i2st_model.training.store import VideoStore
from i2st_model.training.validation import Validation, val_sampler
from pipeline.devices import resolve_device

OnProgress = Callable[[TrainProgress], None]
NO_ROWS = np.empty(0, dtype=np.int64)


def train(
    config: TrainConfig,
    store: VideoStore,
    run_folder: Path,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> TrainReport:
    """Train a network and write its checkpoint into ``run_folder``.

    Args:
        config: every setting of the run.
        store: features, opened with ``num_frames=config.frames``.
        run_folder: created if absent; holds no other run.
        resume: go on with the run in ``run_folder``, whose config and shards must be the same. A
            finished run is left as it is.
        on_progress: called before the first step and after every logged one.

    Returns:
        What came of the run.

    Raises:
        ConfigError: settings contradict each other, the shards, or the run that is resumed.
        CheckpointError: the state to resume from is damaged.
        I2STError: loss or gradient is not finite.
        ResourceError: the disk is full.
    """
    if store.num_frames != (config.frames or store.num_stored):
        raise ValueError(f"the store has {store.num_frames} frames, the config {config.frames}")
    start = time.monotonic()
    with locked(run_folder), own_torch():
        resumed = is_resumed(config, store, run_folder, resume=resume)
        if resumed and (run_folder / CHECKPOINT_NAME).is_file():
            return finished_report(run_folder, time.monotonic() - start)
        trainer = Trainer(config, store, run_folder)
        if not resumed:
            record_run(config, store, run_folder)
        trainer.run(on_progress or (lambda progress: None), resume=resumed)
        return trainer.report(time.monotonic() - start)


class Trainer:
    """One run: its pools, learner, optimizer, and what it keeps."""

    def __init__(self, config: TrainConfig, store: VideoStore, run_folder: Path) -> None:
        self.config, self.store, self.run_folder = config, store, run_folder
        self.device = torch.device(resolve_device(config.device))
        self.pools = pool_sampler(config, store)
        self.train_classes = [store.reader.class_names[v.number] for v in self.pools.videos]
        self.notes = [
            f"train class {name!r} has too few videos and is left out"
            for name in self.pools.dropped
        ]
        self.val, notes = val_sampler(config, store, self.train_classes)
        self.notes += notes
        self.num_steps = num_steps(config.episodes, config.episodes_per_step)
        torch.manual_seed(torch_seed(config.seed, INITIAL))
        self.learner = build_learner(config, store, classes=self.pools.videos, device=self.device)
        self.optimizer = build_optimizer(config, self.learner)
        self.best = Best()
        self.resumed_at: int | None = None

    def run(self, on_progress: OnProgress, *, resume: bool) -> None:
        """Take all steps that are left, then write the checkpoint."""
        done = self._start(resume)
        validation = self._validation()
        self.learner.open(NO_ROWS if validation is None else validation.rows)
        log = StepLog(self.run_folder, after_step=self.resumed_at)
        self.learner.network.train()
        on_progress(self._progress(done, None, None))
        if done == 0 and validation is not None:
            first = validation.accuracy(self.learner)
            log.write({"step": 0, "episodes": 0, "val_accuracy": first})
        for step in range(done, self.num_steps):
            pool = self.pools.pool(step, self._episodes(step + 1) - self._episodes(step))
            batch = self.learner.batch(pool, step)
            torch.manual_seed(torch_seed(self.config.seed, step))
            result = take_step(
                self.config,
                self.learner,
                self.optimizer,
                batch,
                step=step,
                num_steps=self.num_steps,
            )
            self._after_step(step + 1, result, validation, log, on_progress)
        self._finish()

    def report(self, seconds: float) -> TrainReport:
        """What came of the run."""
        return TrainReport(
            run_folder=self.run_folder,
            checkpoint=self.run_folder / CHECKPOINT_NAME,
            num_steps=self.num_steps,
            selected="last" if self.val is None else "val",
            step=self.best.step,
            val_accuracy=self.best.val_accuracy,
            train_classes=tuple(self.train_classes),
            notes=tuple(self.notes),
            resumed_at=self.resumed_at,
            seconds=seconds,
        )

    def _start(self, resume: bool) -> int:
        """Begin, or load what a killed run left; return the steps that are done."""
        if resume and (self.run_folder / STATE_NAME).is_file():
            done, self.best = load_state(
                self.run_folder, learner=self.learner, optimizer=self.optimizer
            )
            self.resumed_at = done
            return done
        self.learner.begin()
        return 0

    def _validation(self) -> Validation | None:
        if self.val is None:
            return None
        return Validation(
            self.val,
            count=self.config.val_episodes,
            num_rows=len(self.store.reader.class_index),
            device=self.device,
        )

    def _after_step(
        self,
        step: int,
        result: StepResult,
        validation: Validation | None,
        log: StepLog,
        on_progress: OnProgress,
    ) -> None:
        last = step == self.num_steps
        accuracy = None
        if validation is not None and (last or step % self.config.val_every == 0):
            accuracy = validation.accuracy(self.learner)
            if self.best.val_accuracy is None or accuracy > self.best.val_accuracy:
                self.best.take(self.learner, step, accuracy)
        if validation is None and last:
            self.best.take(self.learner, step, None)
        if last or accuracy is not None or step % self.config.log_every == 0:
            line = {"step": step, "episodes": self._episodes(step), **result.to_json()}
            log.write(line if accuracy is None else {**line, "val_accuracy": accuracy})
            on_progress(self._progress(step, result, accuracy))
        if not last and step % self.config.state_every == 0:
            save_state(
                self.run_folder,
                step=step,
                learner=self.learner,
                optimizer=self.optimizer,
                best=self.best,
            )

    def _finish(self) -> None:
        index = self.store.index
        info = CheckpointInfo(
            **self.learner.description(),
            train=self.config.to_dict(),
            fingerprint=index.fingerprint,
            dataset=index.dataset_name,
            digest=index.digest,
            train_classes=self.train_classes,
            step=self.best.step,
            val_accuracy=self.best.val_accuracy,
            selected="last" if self.val is None else "val",
        )
        save_checkpoint(self.run_folder, self.best.weights, info)
        (self.run_folder / STATE_NAME).unlink(missing_ok=True)

    def _episodes(self, step: int) -> int:
        return min(self.config.episodes, step * self.config.episodes_per_step)

    def _progress(
        self, step: int, result: StepResult | None, val_accuracy: float | None
    ) -> TrainProgress:
        return TrainProgress(
            step=step,
            num_steps=self.num_steps,
            episodes=self._episodes(step),
            loss=None if result is None else result.loss,
            accuracy=None if result is None else result.accuracy,
            val_accuracy=val_accuracy,
            notes=tuple(self.notes) if result is None else (),
        )
