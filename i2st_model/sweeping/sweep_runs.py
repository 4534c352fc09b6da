"""Training and evaluating the variants of a sweep, every one on the same episodes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from i2st_model.end_to_end.open_store import open_store, open_store_of
from i2st_model.evaluating.config import EvaluateConfig
from i2st_model.evaluation import evaluate_sets
from i2st_model.load_method import load_method
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.results import Result
from i2st_model.sweeping.planned_runs import PlannedRun
from i2st_model.training.keeper import OnProgress
from i2st_model.training.reports import TrainProgress
from i2st_model.training.run import train

OnStep = Callable[[PlannedRun, int, str], None]
SECONDS_PER_LOOK = 0.5
"""Between looks at how far trainings in other processes are."""
NOT_BEGUN = -1
_STEPS: list[Any] = []
"""In a process that trains: the array, shared with the one that asked, of steps of each run."""


def train_runs(
    runs: Sequence[PlannedRun],
    shards: Path,
    *,
    jobs: int,
    threads: int,
    allow_nondeterministic: bool = False,
    on_step: OnStep,
) -> Iterator[PlannedRun]:
    """Train what is not trained yet; a run that was cut short goes on.

    Args:
        runs: of a sweep.
        shards: folder of the shards.
        jobs: trainings at a time, each in a process of its own where there are several.
        threads: CPU threads of each.
        allow_nondeterministic: go on with a run that was begun on other threads or another device.
        on_step: called with a run, its steps so far, and what is done before the next one; that is
            empty where nothing but steps is, and of trainings in other processes.

    Yields:
        PlannedRun: Each when it is finished.

    Raises:
        ConfigError: a variant's settings contradict each other or the shards, or a run was begun on
            other threads or another device.
        ResourceError: the disk is full.
    """
    one = partial(
        train_run, shards=shards, threads=threads, allow_nondeterministic=allow_nondeterministic
    )
    if jobs > 1:
        yield from _in_processes(runs, one, jobs, on_step)
        return
    for run in runs:
        one(run, on_progress=_telling(run, on_step))
        yield run


def _telling(run: PlannedRun, on_step: OnStep) -> OnProgress:
    return lambda now: on_step(run, now.step, now.under_way)


def _in_processes(
    runs: Sequence[PlannedRun], one: Callable[..., None], jobs: int, on_step: OnStep
) -> Iterator[PlannedRun]:
    spawn = get_context("spawn")
    steps, told = spawn.Array("q", [NOT_BEGUN] * len(runs)), [NOT_BEGUN] * len(runs)
    with ProcessPoolExecutor(jobs, spawn, initializer=_share, initargs=(steps,)) as pool:
        submitted = {
            pool.submit(_train_numbered, number, one, run): run for number, run in enumerate(runs)
        }
        try:
            pending = set(submitted)
            while pending:
                done, pending = wait(pending, SECONDS_PER_LOOK, return_when=FIRST_COMPLETED)
                for number, step in enumerate(steps[:]):
                    if step != told[number]:
                        told[number] = step
                        on_step(runs[number], step, "")
                for future in done:
                    future.result()
                    yield submitted[future]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _share(steps: Any) -> None:
    _STEPS.append(steps)


def _train_numbered(number: int, one: Callable[..., None], run: PlannedRun) -> None:
    def tell(now: TrainProgress) -> None:
        _STEPS[0][number] = now.step

    one(run, on_progress=tell)


def train_run(
    run: PlannedRun,
    *,
    shards: Path,
    threads: int,
    allow_nondeterministic: bool,
    on_progress: OnProgress,
) -> None:
    """Train one run, or what is left of it."""
    torch.set_num_threads(threads)
    config = run.config
    store = open_store(shards, encoder=config.encoder, frames=config.frames, device=config.device)
    train(
        config,
        store,
        run.folder,
        resume=True,
        allow_nondeterministic=allow_nondeterministic,
        on_progress=on_progress,
    )


def evaluate_runs(
    planned: Sequence[Sequence[PlannedRun]],
    cells: Sequence[EpisodeSet],
    shards: Path,
    config: EvaluateConfig,
    *,
    on_run: Callable[[PlannedRun], None],
) -> list[list[list[Result]]]:
    """Evaluate every run on the same episodes.

    Args:
        planned: finished runs of each variant.
        cells: sets of episodes.
        shards: folder of the shards.
        config: precision and device.
        on_run: called after every run.

    Returns:
        For each variant and each cell, the results of its seeds.

    Raises:
        ConfigError: a video is absent, or training saw some of it.
        CheckpointError: a checkpoint is damaged.
    """
    found = []
    for runs in planned:
        by_seed = []
        for run in runs:
            store = open_store_of(
                run.folder, shards, frames=run.config.frames, device=config.device
            )
            method, checkpoint = load_method(
                run.config.method,
                store,
                shards=shards,
                run=run.folder,
                device=config.device,
            )
            own = evaluate_sets(method, store, cells, config, checkpoint=checkpoint)
            by_seed.append([one.result for one in own])
            on_run(run)
        found.append([list(seeds) for seeds in zip(*by_seed, strict=True)])
    return found
