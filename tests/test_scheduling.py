"""Scheduling: the same results in process and in worker processes, whatever dies."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil
import pytest

from pipeline.errors import BackendError
from pipeline.scheduling import Where, run_tasks
from pipeline.scheduling.interruption import StopRequest


def run(tasks, open_worker, *, stop=None, **where):
    """Run tasks that are not to be split; one that is given up is its own negative."""
    return run_tasks(
        tasks,
        open_worker,
        where=Where(**where),
        stop=stop,
        split=lambda task: [task],
        give_up=lambda task: -task,
    )


@contextmanager
def squaring(folder, number):
    """Work that records, one file per worker process, how often it was opened."""
    opened = Path(folder) / f"opened-{os.getpid()}"
    opened.write_text(opened.read_text() + "x" if opened.exists() else "x")
    yield lambda task: task * task
    (Path(folder) / f"closed-{os.getpid()}").touch()


@contextmanager
def failing(number):
    raise BackendError("encoder weights are absent; a file was needed; pass --weights")
    yield


@contextmanager
def killing(folder, number):
    """Task 3 kills its worker once; task 5 kills every worker that takes it."""

    def work(task):
        marker = Path(folder) / "killed"
        if task == 5 or (task == 3 and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return task

    yield work


@contextmanager
def listing_sockets(number):
    yield lambda task: (os.getpid(), [c.laddr.ip for c in listening(os.getpid())])


def listening(pid):
    return [c for c in psutil.Process(pid).net_connections("inet") if c.status == "LISTEN"]


def opened_per_process(folder):
    return {path.name.split("-")[1]: path.read_text() for path in folder.glob("opened-*")}


def test_run_tasks_gives_the_same_results_in_process_and_in_two_processes(tmp_path):
    folders = [tmp_path / name for name in ("here", "processes")]
    for folder in folders:
        folder.mkdir()
    here = list(run(range(9), partial(squaring, folders[0]), workers=0))
    processes = list(run(range(9), partial(squaring, folders[1]), workers=2))
    assert here == [n * n for n in range(9)]
    assert sorted(processes) == here
    assert opened_per_process(folders[0]) == {str(os.getpid()): "x"}
    opened = opened_per_process(folders[1])
    assert set(opened.values()) == {"x"}
    assert str(os.getpid()) not in opened
    assert {p.name.split("-")[1] for p in folders[1].glob("closed-*")} == set(opened)


def test_run_tasks_opens_nothing_for_no_task():
    assert list(run([], failing, workers=0)) == []
    assert list(run([], failing, workers=2)) == []


@pytest.mark.parametrize("workers", [0, 1])
def test_run_tasks_raises_what_a_worker_raises(workers):
    with pytest.raises(BackendError, match="weights are absent; a file was needed"):
        list(run([1, 2], failing, workers=workers))


def test_run_tasks_survives_a_killed_worker_and_gives_up_the_task_that_always_kills(tmp_path):
    done = list(run(range(8), partial(killing, tmp_path), workers=2))
    assert sorted(done) == [-5, 0, 1, 2, 3, 4, 6, 7]


def test_run_tasks_listens_on_loopback_only_and_leaves_no_process():
    before = set(psutil.Process().children(recursive=True))
    seen = []
    for pid, addresses in run(range(4), listing_sockets, workers=2):
        seen.append(pid)
        assert set(addresses) <= {"127.0.0.1"}
        assert {c.laddr.ip for c in listening(os.getpid())} == {"127.0.0.1"}
    assert seen
    gone, alive = psutil.wait_procs(
        [p for p in psutil.Process().children(recursive=True) if p not in before and p.pid in seen],
        timeout=10,
    )
    assert not alive


def test_run_tasks_opens_no_socket_in_process():
    ((_, addresses),) = run([0], listing_sockets, workers=0)
    assert addresses == []


@pytest.mark.parametrize("workers", [0, 1])
def test_run_tasks_starts_no_further_task_once_a_stop_is_requested(workers, tmp_path):
    stop = StopRequest()
    results = []
    work = partial(squaring, tmp_path)
    for result in run(range(50), work, workers=workers, hands=2, stop=stop):
        results.append(result)
        stop.signal_number = signal.SIGTERM
    assert len(results) <= 1 + 2


@contextmanager
def sleeping(folder, number):
    def work(task):
        (Path(folder) / f"busy-{os.getpid()}").touch()
        time.sleep(60)

    yield work


def test_run_tasks_kills_its_busy_workers_at_once_on_a_second_signal(tmp_path):
    begin = []

    def two_signals():
        while not list(tmp_path.glob("busy-*")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.1)
        begin.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    with StopRequest() as stop:
        results = run([1, 2], partial(sleeping, tmp_path), workers=1, stop=stop)
        threading.Thread(target=two_signals, daemon=True).start()
        with pytest.raises(SystemExit, match="143"):
            list(results)
    assert time.monotonic() - begin[0] < 5
    busy = [int(path.name.split("-")[1]) for path in tmp_path.glob("busy-*")]
    assert not any(psutil.pid_exists(pid) for pid in busy)


COMPUTER = """
    import os, signal, threading, time
    from contextlib import contextmanager
    import torch
    from pipeline.scheduling.interruption import StopRequest
    from pipeline.scheduling import Where, run_tasks

    @contextmanager
    def computing(number):
        def work(matrix):
            busy.set()
            while True:
                matrix @ matrix
        yield work
        print("never closed before its end")

    def two_signals():
        busy.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        while stop.signal_number is None:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    busy = threading.Event()
    with StopRequest(grace_seconds=50) as stop:
        threading.Thread(target=two_signals, daemon=True).start()
        tasks = [torch.ones(500, 500)] * 3
        list(run_tasks(tasks, computing, where=Where(), stop=stop, split=list, give_up=list))
"""


def test_run_tasks_leaves_hands_that_compute_behind_on_a_second_signal(repository):
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(COMPUTER)],
        cwd=repository,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    # Without care, torch's threads abort the interpreter at its end, with status -6.
    assert (process.returncode, process.stdout) == (143, "")
    assert process.stderr == (
        "stopping: what was begun is finished, for 50 s at most; a second signal stops at once\n"
        "stopped; what is finished is kept, the same command goes on from there\n"
    )


WAITER = """
    import sys, time
    from pipeline.scheduling.interruption import StopRequest
    with StopRequest(grace_seconds={grace}) as stop:
        print("ready", flush=True)
        begin = time.monotonic()
        while time.monotonic() < begin + 20:
            time.sleep(0.01)
            if {leave} and stop.requested:
                sys.exit(f"finished {{stop.signal_number}}")
"""


def start_waiter(repository, *, grace, leave):
    script = textwrap.dedent(WAITER).format(grace=grace, leave=leave)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=repository,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def test_stop_request_lets_the_work_end_after_one_signal(repository):
    process = start_waiter(repository, grace=20, leave=True)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=10)
    assert errors.splitlines() == [
        "stopping: what was begun is finished, for 20 s at most; a second signal stops at once",
        "finished 15",
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stop_request_ends_at_once_on_the_second_signal(repository, number, code):
    process = start_waiter(repository, grace=20, leave=False)
    process.send_signal(number)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(number)
    process.communicate(timeout=10)
    assert process.returncode == code


def test_stop_request_ends_when_the_grace_is_over(repository):
    process = start_waiter(repository, grace=0.3, leave=False)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143


def test_stop_request_restores_the_handlers_it_found():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
