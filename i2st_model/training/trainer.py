"""One run from its first step, or the step it was killed at, to its checkpoint."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from i2st_model.checkpoints import save_checkpoint
from i2st_model.runs import CHECKPOINT_NAME, STATE_NAME, StepLog
from i2st_model.training.ahead import made_ahead
from i2st_model.training.config import TrainConfig, TrainProgress, TrainReport
from i2st_model.training.finite import NotFiniteError
from i2st_model.training.initial import (
    initial_info,
    require_same_encoder,
    take_initial_weights,
)
from i2st_model.training.learners import build_learner
from i2st_model.training.outcome import checkpoint_info, seen_classes
from i2st_model.training.ranks import Ranks
from i2st_model.training.replay import discard_fault, save_fault
from i2st_model.training.resume import changed_bits
from i2st_model.training.setup import INITIAL, NO_ROWS, pool_sampler, torch_seed
from i2st_model.training.state import Best, load_state, save_state
from i2st_model.training.step import StepResult, build_optimizer, take_step
from i2st_model.training.step_pools import require_shared, step_pools
from i2st_model.training.store import VideoStore
from i2st_model.training.validation import Validation, val_sampler

OnProgress = Callable[[TrainProgress], None]


class Trainer:
    """A run's pools, learner and optimizer, and what is kept of them.

    Args:
        config: the run's settings.
        store: what the shards hold.
        run_folder: the first process writes into it.
        ranks: the processes that share the run.

    Raises:
        ConfigError: settings contradict each other, the shards or the number of processes.
    """

    def __init__(
        self, config: TrainConfig, store: VideoStore, run_folder: Path, ranks: Ranks
    ) -> None:
        self.config, self.store, self.run_folder, self.ranks = config, store, run_folder, ranks
        require_shared(config, ranks.count)
        self.device = torch.device(ranks.own_device(config.device))
        self.pools = pool_sampler(config, store)
        self.train_classes = [store.reader.class_names[v.number] for v in self.pools.videos]
        self.notes = [
            f"train class {name!r} has too few videos and is left out"
            for name in self.pools.dropped
        ]
        self.initial = initial_info(config)
        if self.initial is not None:
            require_same_encoder(config, self.initial, store.index.fingerprint)
        # What earlier training saw is not selected on either.
        seen = seen_classes(self.train_classes, self.initial)
        self.val, notes = val_sampler(config, store, seen)
        self.notes += notes
        self.num_steps = step_pools(config, 0).num_steps
        torch.manual_seed(torch_seed(config.seed, INITIAL))
        self.learner = build_learner(config, store, classes=self.pools.videos, device=self.device)
        self.optimizer = build_optimizer(config, self.learner)
        self.best = Best()
        self.resumed_at: int | None = None

    def run(self, on_progress: OnProgress, *, resume: bool) -> None:
        """Take all steps that are left, then write the checkpoint."""
        with self.ranks.together():
            done = self._start(resume)
            validation = self._validation()
            self.learner.open(NO_ROWS if validation is None else validation.rows)
            self._before_steps(done, validation, on_progress)
        with closing(self._batches(done)) as batches:
            for step in range(done, self.num_steps):
                result = self._step(step, batches)
                with self.ranks.together():
                    if self.ranks.first:
                        self._after_step(step + 1, result, validation, on_progress)
        with self.ranks.together():
            if self.ranks.first:
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
                self.run_folder / STATE_NAME, learner=self.learner, optimizer=self.optimizer
            )
            self.resumed_at = done
            return done
        if self.config.init_from is None:
            self.learner.begin()
        else:
            take_initial_weights(self.config, self.learner)
        return 0

    def _validation(self) -> Validation | None:
        if self.val is None or not self.ranks.first:
            return None
        return Validation(
            self.val,
            count=self.config.val_episodes,
            num_rows=len(self.store.reader.class_index),
            device=self.device,
        )

    def _before_steps(
        self, done: int, validation: Validation | None, on_progress: OnProgress
    ) -> None:
        self.learner.network.train()
        if not self.ranks.first:
            return
        self._log = StepLog(self.run_folder, after_step=self.resumed_at)
        if self.resumed_at is not None:
            self._note_changes()
        on_progress(self._progress(done, None, None))
        if done == 0 and validation is not None:
            first = validation.accuracy(self.learner)
            self._log.write({"step": 0, "episodes": 0, "val_accuracy": first})

    def _note_changes(self) -> None:
        """Say in the log, too, that a run goes on otherwise than it was begun."""
        changed = changed_bits(self.config, self.run_folder)
        if changed:
            said = (
                f"went on after step {self.resumed_at} with {', '.join(changed)}; "
                "the last bits may differ"
            )
            self.notes.append(said)
            self._log.write({"step": self.resumed_at, "note": said})

    def _batches(self, done: int) -> Generator[Any, None, None]:
        """This process's batches of all steps that are left, made one ahead."""

        def numbers() -> Iterator[tuple[int, int]]:
            for step in range(done, self.num_steps):
                pools = step_pools(self.config, step)
                yield from self.ranks.share(list(zip(pools.numbers, pools.episodes, strict=True)))

        def make(pool: tuple[int, int]) -> Any:
            number, episodes = pool
            return self.learner.batch(self.pools.pool(number, episodes), number)

        return made_ahead(make, numbers())

    def _step(self, step: int, batches: Iterator[Any]) -> StepResult:
        pools = step_pools(self.config, step)
        own = self.ranks.share(pools.numbers)
        try:
            return take_step(
                self.config,
                self.learner,
                self.optimizer,
                islice(batches, len(own)),
                pools=pools,
                ranks=self.ranks,
            )
        except NotFiniteError as fault:
            if self.ranks.first:
                save_fault(
                    self.run_folder, fault, pools, learner=self.learner, optimizer=self.optimizer
                )
            said = f"{fault}; `i2st replay {self.run_folder}` shows where"
            raise NotFiniteError(said, fault.culprits) from None

    def _after_step(
        self,
        step: int,
        result: StepResult,
        validation: Validation | None,
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
            self._log.write(line if accuracy is None else {**line, "val_accuracy": accuracy})
            on_progress(self._progress(step, result, accuracy))
        if not last and step % self.config.state_every == 0:
            self._log.sync()
            save_state(
                self.run_folder / STATE_NAME,
                step=step,
                learner=self.learner,
                optimizer=self.optimizer,
                best=self.best,
            )
            discard_fault(self.run_folder, step)

    def _finish(self) -> None:
        self._log.sync()
        info = checkpoint_info(
            self.config,
            self.store,
            self.best,
            train_classes=self.train_classes,
            initial=self.initial,
            selected="last" if self.val is None else "val",
            description=self.learner.description(),
        )
        save_checkpoint(self.run_folder, self.best.weights, info)
        (self.run_folder / STATE_NAME).unlink(missing_ok=True)
        discard_fault(self.run_folder, self.num_steps)

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
