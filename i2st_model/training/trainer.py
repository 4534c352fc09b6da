"""One run from its first step, or the step it was killed at, to its checkpoint."""

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from i2st_model.features import FeatureStore
from i2st_model.runs import CHECKPOINT_NAME, STATE_NAME
from i2st_model.training.ahead import made_ahead
from i2st_model.training.config import TrainConfig
from i2st_model.training.finite import NotFiniteError
from i2st_model.training.initial import (
    initial_info,
    require_same_encoder,
    take_initial_weights,
)
from i2st_model.training.keeper import Keeper, OnProgress
from i2st_model.training.learners import build_learner
from i2st_model.training.outcome import checkpoint_info, seen_classes
from i2st_model.training.ranks import Ranks
from i2st_model.training.replay import save_fault
from i2st_model.training.reports import TrainReport
from i2st_model.training.setup import INITIAL, NO_ROWS, pool_sampler, torch_seed
from i2st_model.training.step import StepResult, build_optimizer, take_step
from i2st_model.training.step_pools import require_shared, step_pools
from i2st_model.training.validation import Validation, val_sampler
from pipeline.errors import ConfigError


class Trainer:
    """A run's pools, learner and optimizer, step by step.

    Args:
        config: the run's settings.
        store: what the shards hold.
        run_folder: the first process writes into it.
        ranks: the processes that share the run.
        on_progress: is told how far the run is, by the first process.

    Raises:
        ConfigError: settings contradict each other, the shards or the number of processes.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        run_folder: Path,
        ranks: Ranks,
        on_progress: OnProgress,
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
        self.keeper = Keeper(
            config,
            run_folder,
            self.num_steps,
            learner=self.learner,
            optimizer=self.optimizer,
            notes=self.notes,
            on_progress=on_progress,
        )

    def run(self, *, resume: bool) -> None:
        """Take all steps that are left, then write the checkpoint."""
        with self.ranks.together():
            done = self._start(resume)
        self._require_one_start(done)
        with self.ranks.together():
            validation = self._validation()
            read = "train" if validation is None else "train and val"
            self.keeper.say(done, f"reading {read} videos")
            self.learner.open(NO_ROWS if validation is None else validation.rows)
            self.notes += self.learner.data.notes
            self.learner.network.train()
            if self.ranks.first:
                self.keeper.begin(done, validation)
        with closing(self._batches(done)) as batches:
            for step in range(done, self.num_steps):
                result = self._step(step, batches)
                with self.ranks.together():
                    if self.ranks.first:
                        self.keeper.after_step(step + 1, result)
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
            step=self.keeper.best.step,
            val_accuracy=self.keeper.best.val_accuracy,
            train_classes=tuple(self.train_classes),
            notes=tuple(self.notes),
            resumed_at=self.keeper.resumed_at,
            seconds=seconds,
        )

    def _start(self, resume: bool) -> int:
        """Begin, or load what a killed run left; return the steps that are done."""
        if resume and (self.run_folder / STATE_NAME).is_file():
            return self.keeper.load_state()
        if self.config.init_from is None:
            self.keeper.say(0, "fitting to train videos")
            self.learner.begin()
        else:
            take_initial_weights(self.config, self.learner)
        return 0

    def _require_one_start(self, done: int) -> None:
        """Refuse to go on where a process does not see the state that the first one goes on from.

        Args:
            done: steps that are done, as this process sees it.
        """
        first = self.ranks.from_first(lambda: str(done))
        with self.ranks.together():
            if str(done) != first:
                raise ConfigError(
                    f"{self.run_folder} is at step {done} on one machine and at step {first} on "
                    "another; one folder was needed; put it on a disk that all of them share"
                )

    def _validation(self) -> Validation | None:
        if self.val is None or not self.ranks.first:
            return None
        return Validation(self.val, count=self.config.val_episodes, device=self.device)

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

    def _finish(self) -> None:
        info = checkpoint_info(
            self.config,
            self.store,
            self.keeper.best,
            train_classes=self.train_classes,
            initial=self.initial,
            val_classes=[] if self.val is None else [one.name for one in self.val.videos],
            description=self.learner.description(),
        )
        self.keeper.finish(info)
