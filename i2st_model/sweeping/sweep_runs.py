"""Training and evaluating the variants of a sweep, every one on the same episodes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from i2st_model.end_to_end.open_store import open_store, open_store_of
from i2st_model.evaluating.config import EvaluateConfig
from i2st_model.evaluation import evaluate_sets
from i2st_model.load_method import load_method
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.results import Result
from i2st_model.sweeping.planned_runs import PlannedRun
from i2st_model.training.run import train


def train_runs(
    runs: Sequence[PlannedRun],
    shards: Path,
    *,
    jobs: int,
    threads: int,
    allow_nondeterministic: bool = False,
) -> Iterator[PlannedRun]:
    """Train what is not trained yet; a run that was cut short goes on.

    Args:
        runs: of a sweep.
        shards: folder of the shards.
        jobs: trainings at a time, each in a process of its own where there are several.
        threads: CPU threads of each.
        allow_nondeterministic: go on with a run that was begun on other threads or another device.

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
    if jobs == 1:
        for run in runs:
            one(run)
            yield run
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(one, run): run for run in runs}
        try:
            for done in as_completed(waiting):
                done.result()
                yield waiting[done]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def train_run(run: PlannedRun, *, shards: Path, threads: int, allow_nondeterministic: bool) -> None:
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
