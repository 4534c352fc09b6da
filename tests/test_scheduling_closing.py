"""Clusters that do not close as dask expects: results and errors come through, and all ends."""

import asyncio
import os
import threading
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest
from distributed import Client, LocalCluster, Nanny, SpecCluster
from distributed.nanny import WorkerProcess

from pipeline.errors import BackendError
from pipeline.scheduling import Where, closing, run_tasks


def run(folder, tasks):
    return run_tasks(
        tasks,
        partial(squaring, folder),
        where=Where(workers=2, hands=1),
        split=lambda task: [task],
        give_up=lambda task: -task,
    )


@contextmanager
def squaring(folder, number):
    """Work that leaves a file per process, and fails for tasks below 0."""

    def work(task):
        (Path(folder) / str(os.getpid())).touch()
        if task < 0:
            raise BackendError(f"task {task} is below 0; pass another")
        return task * task

    yield work


async def fail(*_, **__):
    raise AssertionError("can only join a started process")


async def hang(*_, **__):
    await asyncio.sleep(600)


def fail_at_once(*_, **__):
    raise AssertionError("closing")


@pytest.fixture(
    params=[
        (Nanny, "kill", fail),
        (Nanny, "kill", hang),
        (WorkerProcess, "kill", fail),
        (SpecCluster, "_correct_state", fail),
        (SpecCluster, "_close", fail),
        (LocalCluster, "close", fail_at_once),
        (Client, "close", fail_at_once),
    ],
    ids=lambda param: f"{param[0].__name__}.{param[1]} {param[2].__name__}s",
)
def broken(request, monkeypatch):
    """Breaks closing, once it is called."""
    monkeypatch.setattr(closing, "CLOSE_SECONDS", 3.0)
    return lambda: monkeypatch.setattr(*request.param)


def num_loops():
    return sum("IO loop" in thread.name for thread in threading.enumerate())


def assert_nothing_lives_on(folder, num_loops_before):
    workers = [int(path.name) for path in folder.iterdir()]
    assert workers
    processes = [psutil.Process(pid) for pid in workers if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(processes, timeout=5)
    assert not alive
    assert num_loops() <= num_loops_before


def test_run_tasks_gives_all_results_when_its_cluster_does_not_close(tmp_path, broken):
    results = run(tmp_path, range(9))
    before = num_loops()
    done = [next(results)]
    broken()
    done += results
    assert sorted(done) == [n * n for n in range(9)]
    assert_nothing_lives_on(tmp_path, before)


def read_on(results, broken):
    for _ in results:
        broken()


def test_run_tasks_raises_the_error_of_a_task_when_its_cluster_does_not_close(tmp_path, broken):
    results = run(tmp_path, [1, 2, -3, 4])
    before = num_loops()
    with pytest.raises(BackendError, match="task -3 is below 0"):
        read_on(results, broken)
    assert_nothing_lives_on(tmp_path, before)
