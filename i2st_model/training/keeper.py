"""What a run keeps while it trains: its log, the best weights, states to go on from, a checkpoint.

The first process alone does so, whichever number share the run.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from i2st_model.checkpoints import CheckpointInfo, save_checkpoint
from i2st_model.runs import FAULT_NAME, STATE_NAME
from i2st_model.training.config import TrainConfig
from i2st_model.training.finite import require_finite_weights
from i2st_model.training.learner import Learner
from i2st_model.training.reports import TrainProgress
from i2st_model.training.resume import changed_bits
from i2st_model.training.state import Best, load_state, save_state
from i2st_model.training.step import StepResult
from i2st_model.training.step_log import StepLog
from i2st_model.training.validation import Validation

OnProgress = Callable[[TrainProgress], None]


class Keeper:
    """Keeps what a run needs in its folder, and tells its caller how far it is.

    Args:
        config: the run's settings.
        run_folder: is written into.
        num_steps: of the whole run.
        learner: whose weights are kept.
        optimizer: whose moments are kept.
        notes: sentences for the user; more are added.
        on_progress: is told of every logged step, and of what may take longer.
    """

    def __init__(
        self,
        config: TrainConfig,
        run_folder: Path,
        num_steps: int,
        *,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        notes: list[str],
        on_progress: OnProgress,
    ) -> None:
        self.config, self.run_folder, self.num_steps = config, run_folder, num_steps
        self.learner, self.optimizer, self.notes = learner, optimizer, notes
        self._tell, self.best = on_progress, Best()
        self.resumed_at: int | None = None

    def load_state(self) -> int:
        """Load what a killed run left; return the steps that are done."""
        done, self.best = load_state(
            self.run_folder / STATE_NAME, learner=self.learner, optimizer=self.optimizer
        )
        self.resumed_at = done
        return done

    def say(self, done: int, under_way: str) -> None:
        """Tell what is done before the next step; see `TrainProgress.under_way`."""
        self._tell(replace(self._progress(done), under_way=under_way))

    def begin(self, done: int, validation: Validation | None) -> None:
        """Open the log, and look at the val split before the first step of all.

        Args:
            done: steps that are done.
            validation: selects the weights; None keeps the last.
        """
        self._validation = validation
        self._log = StepLog(self.run_folder, after_step=self.resumed_at)
        if self.resumed_at is not None:
            self._note_changes()
        self._tell(replace(self._progress(done), notes=tuple(self.notes)))
        if done == 0 and validation is not None:
            first = self._accuracy(0, validation)
            self._log.write({"step": 0, "episodes": 0, "val_accuracy": first})
        self.say(done, f"step {done + 1}")

    def after_step(self, step: int, result: StepResult) -> None:
        """Select, log, tell and save as the settings ask for.

        Args:
            step: 1 for the first.
            result: its numbers.
        """
        last = step == self.num_steps
        accuracy = self._selected(step, last)
        if last or accuracy is not None or step % self.config.log_every == 0:
            line = {"step": step, "episodes": self._episodes(step), **result.to_json()}
            self._log.write(line if accuracy is None else {**line, "val_accuracy": accuracy})
            self._tell(self._progress(step, result, accuracy))
        if not last and step % self.config.state_every == 0:
            self._log.sync()
            save_state(
                self.run_folder / STATE_NAME,
                step=step,
                learner=self.learner,
                optimizer=self.optimizer,
                best=self.best,
            )
            # A fault lies behind the state that a run goes on from, so this run is past it.
            (self.run_folder / FAULT_NAME).unlink(missing_ok=True)

    def finish(self, info: CheckpointInfo) -> None:
        """Write the checkpoint, after which nothing else is needed.

        Args:
            info: what it says of the best weights.

        Raises:
            NotFiniteError: they are not finite: no loss comes after the last update to show it.
        """
        require_finite_weights(self.best.weights, self.config, self.best.step)
        self._log.sync()
        save_checkpoint(self.run_folder, self.best.weights, info)
        for name in (STATE_NAME, FAULT_NAME):
            (self.run_folder / name).unlink(missing_ok=True)

    def _selected(self, step: int, last: bool) -> float | None:
        """Look at the val split where it is time; keep the best weights, or the last."""
        if self._validation is None:
            if last:
                self.best.take(self.learner, step, None)
            return None
        if not last and step % self.config.val_every:
            return None
        accuracy = self._accuracy(step, self._validation)
        if self.best.val_accuracy is None or accuracy > self.best.val_accuracy:
            self.best.take(self.learner, step, accuracy)
        return accuracy

    def _accuracy(self, done: int, validation: Validation) -> float:
        self.say(done, f"looking at {len(validation.rows):,} val videos")
        return validation.accuracy(self.learner)

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

    def _episodes(self, step: int) -> int:
        return min(self.config.episodes, step * self.config.episodes_per_step)

    def _progress(
        self, step: int, result: StepResult | None = None, val_accuracy: float | None = None
    ) -> TrainProgress:
        return TrainProgress(
            step=step,
            num_steps=self.num_steps,
            episodes=self._episodes(step),
            loss=None if result is None else result.loss,
            accuracy=None if result is None else result.accuracy,
            val_accuracy=val_accuracy,
        )
