"""Training by episodes, from shards to a checkpoint; a killed run goes on to the same weights.

On CPUs the weights are a function of the shards' content, the config and the number of threads, bit
for bit and across interruptions. On a GPU sums are made in no fixed order and the last bits differ.
"""

import time
from contextlib import ExitStack
from pathlib import Path

from i2st_model.features import FeatureStore
from i2st_model.settings_scope import require_read, told
from i2st_model.training.config import TrainConfig
from i2st_model.training.keeper import OnProgress
from i2st_model.training.ranks import current_ranks
from i2st_model.training.reports import TrainProgress, TrainReport
from i2st_model.training.resume import (
    FINISHED,
    NEW,
    UNFINISHED,
    decides_run,
    finished_report,
    record_run,
    run_status,
)
from i2st_model.training.run_folder import locked, withdrawn_if_refused
from i2st_model.training.setup import own_torch
from i2st_model.training.trainer import Trainer


def train(
    config: TrainConfig,
    store: FeatureStore,
    run_folder: Path,
    *,
    resume: bool = False,
    allow_nondeterministic: bool = False,
    on_progress: OnProgress | None = None,
) -> TrainReport:
    """Train a network and write its checkpoint into ``run_folder``.

    Args:
        config: every setting of the run.
        store: features, opened with ``num_frames=config.frames``.
        run_folder: created if absent; holds no other run.
        resume: go on with the run in ``run_folder``, whose config and shards must be the same. A
            finished run is left as it is.
        allow_nondeterministic: resume on other threads, another kind of device or by another torch,
            too, though the last bits of the weights will differ.
        on_progress: called before the first step, after every logged one, and before what may take
            longer than a step; once where the run was finished already.

    Returns:
        What came of the run.

    Raises:
        ConfigError: settings contradict each other, the shards, or the run that is resumed; or the
            method of a new run does not read one.
        CheckpointError: the state to resume from is damaged.
        NotFiniteError: loss or gradient is not finite; `replay` tells more.
        ResourceError: the disk is full.
    """
    if store.num_frames != (config.frames or store.num_stored):
        raise ValueError(f"the store has {store.num_frames} frames, the config {config.frames}")
    start, ranks = time.monotonic(), current_ranks()
    tell = (on_progress if ranks.first else None) or (lambda progress: None)
    with ExitStack() as held, own_torch():
        with ranks.together():
            if ranks.first:
                held.enter_context(locked(run_folder))
            decided = decides_run(config, store)
        ranks.require_same(decided)
        status = ranks.from_first(
            lambda: run_status(
                config,
                store,
                run_folder,
                resume=resume,
                allow_nondeterministic=allow_nondeterministic,
            )
        )
        if status == FINISHED:
            report = finished_report(config, run_folder, time.monotonic() - start)
            tell(_all_done(config, report))
            return report
        with ranks.together():
            if status == NEW:  # runs of earlier versions may be gone on with
                require_read(config.method, told(config))
            trainer = Trainer(config, store, run_folder, ranks, tell)
            if ranks.first and status == NEW:
                held.enter_context(withdrawn_if_refused(run_folder))
                record_run(config, store, run_folder)
        trainer.run(resume=status == UNFINISHED)
        return trainer.report(time.monotonic() - start)


def _all_done(config: TrainConfig, report: TrainReport) -> TrainProgress:
    return TrainProgress(
        step=report.num_steps,
        num_steps=report.num_steps,
        episodes=config.episodes,
        notes=report.notes,
    )
