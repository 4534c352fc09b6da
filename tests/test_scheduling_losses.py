"""What becomes of tasks whose workers die: by the book, and under a killer."""

import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from distributed.comm import CommClosedError

from pipeline.errors import ResourceError
from pipeline.scheduling import Where, run_tasks
from pipeline.scheduling.blame import TaskBook
from pipeline.scheduling.dask_hands import DaskHands, HeldBy
from pipeline.scheduling.evidence import Evidence, Try
from pipeline.scheduling.types import Remedies


def halves(task):
    """A task is a tuple of numbers; a single number cannot be made smaller."""
    middle = len(task) // 2
    return [part for part in (task[:middle], task[middle:]) if part]


def give_up(task):
    return ("gave up", task)


def book_of(*tasks):
    return TaskBook(tasks, Remedies(halves, give_up))


def take_all(book):
    tries = []
    while not book.is_empty:
        tries.append(book.take())
    return tries


def work_through(book, is_fatal):
    """Run a book in workers of 2 hands that die of fatal tasks; results, and deaths per task."""
    results, deaths = [], Counter()
    while not book.is_empty:
        held = [book.take()]
        if not held[0].alone and not book.is_empty and not book.next_is_alone:
            held.append(book.take())
        if any(is_fatal(one.task) for one in held):
            deaths.update(one.task for one in held)
            results += book.died(held)
            continue
        for one in held:
            results += [one.task, *book.finished(one)]
    return results, deaths


def test_book_gives_every_task_once_and_reads_no_further_than_it_is_asked():
    read = []

    def tasks():
        for number in range(4):
            read.append(number)
            yield (number,)

    book = TaskBook(tasks(), Remedies(halves, give_up))
    assert book.take().task == (0,)
    assert read == [0]
    assert [one.task for one in take_all(book)] == [(1,), (2,), (3,)]
    assert book.is_empty


def test_book_finds_the_one_fatal_video_and_finishes_all_others():
    book = book_of((0, 1, 2, 3), (4, 5, 6, 7), (8, 9))
    results, deaths = work_through(book, lambda task: 6 in task)
    finished = [number for task in results if task[0] != "gave up" for number in task]
    assert sorted(finished) == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert [task for task in results if task[0] == "gave up"] == [("gave up", (6,))]
    # 2 with others; then, alone, 1 before (6, 7) is split and 5 for (6,).
    assert deaths == {(0, 1, 2, 3): 2, (4, 5, 6, 7): 2, (6, 7): 1, (6,): 5}


def test_book_runs_a_task_alone_before_it_gives_it_up():
    book = book_of((1,))
    for _ in range(2):
        one = book.take()
        assert not one.alone
        assert book.died([one]) == []
    for results in ([], [], [], [], [("gave up", (1,))]):
        assert book.next_is_alone
        one = book.take()
        assert one.alone
        assert book.died([one]) == results
    assert book.is_empty


def test_book_lets_others_come_to_their_end_between_two_tries_of_a_suspect():
    book = book_of(*[(n,) for n in range(80)])
    suspect = book.take()
    for _ in range(2):
        book.died([suspect])
        suspect = book.take()
    assert suspect.alone
    num_between = []
    for _ in range(4):
        book.died([suspect])
        num_between.append(0)
        while (one := book.take()).task != (0,):
            assert book.finished(one) == []
            num_between[-1] += 1
        suspect = one
    assert num_between == [4, 8, 16, 16]
    assert book.died([suspect]) == []
    # Whether the machine works at all is shown by the next that comes to its end.
    assert book.finished(book.take()) == [("gave up", (0,))]


def test_book_gives_nothing_up_while_an_earlier_death_may_prove_to_be_nobodys():
    book = book_of((1,), (2,), (3,))
    one, other, last = take_all(book)
    book.died([other])
    other = book.take()
    for _ in range(7):
        book.died([one])
        one = book.take() if not book.is_empty else None
    assert book.is_empty
    # Not while 2 is out, whose death was before.
    assert book.finished(last) == []
    # It was nobody's, so chance is likelier, and 1 is run again.
    assert book.finished(other) == []
    assert book.take().task == (1,)


def test_evidence_asks_for_more_losses_the_more_workers_die_of_something_else():
    evidence = Evidence()
    for _ in range(200):
        evidence.finished(Try(0))
    assert evidence.most_losses_alone() == 5
    asked = []
    for num_losses in (1, 1, 2, 5):
        for _ in range(10):
            one = Try(0)
            for _ in range(num_losses):
                evidence.died([one])
            evidence.finished(one)
        asked.append(evidence.most_losses_alone())
    assert asked[0] < asked[1] < asked[2] < asked[3] <= 40
    # Of 200 lately, 90 were losses: 20 losses in a row have a chance of 1e-6, for 0.5 ** 20.
    assert 15 <= asked[3] <= 22


def kill_all(book, results):
    while not book.is_empty:
        results += book.died([book.take()])


def test_book_blames_the_machine_and_no_task_when_everything_dies():
    book, lost = book_of(*[(n, n + 1) for n in range(99)]), []
    with pytest.raises(ResourceError, match="22 workers in a row died with nothing finished"):
        kill_all(book, lost)
    assert lost == []


def test_book_blames_the_machine_when_it_fails_near_the_end():
    book, lost = book_of(*[(n,) for n in range(40)]), []
    for _ in range(30):
        book.finished(book.take())
    with pytest.raises(ResourceError, match="22 workers in a row died with nothing finished"):
        kill_all(book, lost)
    assert lost == []


def test_book_gives_up_three_fatal_tasks_with_nothing_left_to_compare():
    results, deaths = work_through(book_of((1,), (2,), (3,)), lambda task: True)
    assert sorted(results) == [("gave up", (n,)) for n in (1, 2, 3)]
    assert max(deaths.values()) == 7


def test_book_goes_on_when_something_is_finished_between_fatal_tasks():
    tasks = [(n,) for n in range(9)]
    results, _ = work_through(book_of(*tasks), lambda task: task[0] % 3 == 1)
    assert sorted(r for r in results if r[0] != "gave up") == [(0,), (2,), (3,), (5,), (6,), (8,)]
    assert len(results) == 9


def test_a_worker_with_a_lonely_task_takes_no_other_and_a_busy_one_takes_no_lonely_one():
    worker = HeldBy("tcp://127.0.0.1:1", 0, 2, 0.0)
    assert not worker.can_take(alone=False)
    worker.opened = True
    assert worker.can_take(alone=True)
    worker.held = {Try(0): None}
    assert (worker.can_take(alone=False), worker.can_take(alone=True)) == (True, False)
    worker.held = {Try(0): None, Try(1): None}
    assert not worker.can_take(alone=False)
    worker.held = {Try(0, alone=True): None}
    assert (worker.can_take(alone=False), worker.can_take(alone=True)) == (False, False)


@contextmanager
def dying(folder, number):
    """Dies while it is opened."""
    (Path(folder) / str(os.getpid())).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    yield None


def test_run_tasks_ends_when_workers_die_while_they_are_opened(tmp_path):
    work = partial(dying, tmp_path)
    with pytest.raises(ResourceError, match="8 workers in a row died while they loaded"):
        list(run_tasks([1], work, where=Where(workers=1), split=list, give_up=give_up))
    assert len(list(tmp_path.iterdir())) >= 8


@contextmanager
def marking(folder, seconds, number):
    """Work that leaves a file while it is busy, and kills its worker for tasks below 0."""

    def work(task):
        mark = Path(folder) / f"{os.getpid()}-{threading.get_ident()}"
        mark.touch()
        if min(task) < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(seconds)
        mark.unlink()
        return task

    yield work


class Killer(threading.Thread):
    """Kills a busy worker every half second."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.num_kills = 0
        self._folder = folder
        self._done = threading.Event()
        self._random = random.Random(0)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self._done.set()
        self.join()

    def run(self):
        while not self._done.wait(0.5):
            busy = sorted({int(path.name.split("-")[0]) for path in self._folder.iterdir()})
            alive = [pid for pid in busy if psutil.pid_exists(pid)]
            if alive:
                with suppress(ProcessLookupError):
                    os.kill(self._random.choice(alive), signal.SIGKILL)
                    self.num_kills += 1


def run_under_a_killer(folder, make_tasks, *, workers, seconds):
    """Results and kills of a run whose tasks are made as they are needed, by a function of the
    killer, so that it lasts for as many kills as it should on any machine.
    """
    with Killer(folder) as killer:
        where = Where(workers=workers, hands=3)
        work = partial(marking, folder, seconds)
        tasks = make_tasks(killer)
        results = list(run_tasks(tasks, work, where=where, split=halves, give_up=give_up))
    return results, killer.num_kills


def pairs_until(num_kills, killer, *, least):
    """Pairs of numbers: ``least`` of them, and more until so many kills have come."""
    for pair in count():
        if pair >= least and killer.num_kills >= num_kills:
            return
        yield 2 * pair, 2 * pair + 1


def numbers_in(results):
    return sorted(number for task in results if task[0] != "gave up" for number in task)


def assert_is_gapless(numbers, *, least):
    assert numbers == list(range(max(least, len(numbers))))


def test_run_tasks_does_every_task_once_while_busy_workers_are_killed(tmp_path):
    tasks = partial(pairs_until, 3, least=60)
    results, num_kills = run_under_a_killer(tmp_path, tasks, workers=2, seconds=0.2)
    assert num_kills >= 3
    assert_is_gapless(numbers_in(results), least=120)


def test_run_tasks_gives_up_nothing_but_the_fatal_video_under_a_killer(tmp_path):
    def tasks(killer):
        yield 10**6, -1
        yield from pairs_until(3, killer, least=40)

    results, num_kills = run_under_a_killer(tmp_path, tasks, workers=2, seconds=0.1)
    assert num_kills >= 3
    assert [task for task in results if task[0] == "gave up"] == [("gave up", (-1,))]
    *numbers, last = numbers_in(results)
    assert last == 10**6
    assert_is_gapless(numbers, least=80)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_run_tasks_does_every_task_once_under_a_hundred_kills(tmp_path):
    tasks = partial(pairs_until, 100, least=1200)
    results, num_kills = run_under_a_killer(tmp_path, tasks, workers=2, seconds=0.2)
    print(f"{num_kills} kills")
    assert num_kills >= 100
    assert_is_gapless(numbers_in(results), least=2400)


class FetchedFrom:
    """A client with one worker, whose futures end as told."""

    def __init__(self, status, error):
        self.scheduler = SimpleNamespace(address="tcp://scheduler:1")
        self._future = SimpleNamespace(status=status, result=self._fail)
        self._error = error

    def nthreads(self):
        return {"tcp://w:1": 1}

    def submit(self, call, **options):
        return self._future

    def _fail(self):
        raise self._error


def outcome_of_one_try(status, error):
    hands = DaskHands(FetchedFrom(status, error), "plugin", hands=1)
    hands.look()
    (worker,) = hands.workers.values()
    hands.give(worker, Try(("task",)))
    outcome = None
    while outcome is None:
        outcome = hands.next_outcome()
    return outcome


def test_a_result_that_cannot_be_fetched_says_that_the_scheduler_is_gone():
    outcome = outcome_of_one_try("finished", CommClosedError("reset by peer"))
    assert isinstance(outcome.error, ResourceError)
    assert "the scheduler at tcp://scheduler:1 is gone (reset by peer)" in str(outcome.error)
    assert not outcome.is_loss


def test_a_task_that_fails_for_want_of_a_file_fails_with_that():
    error = FileNotFoundError("no such file")
    assert outcome_of_one_try("error", error).error is error
