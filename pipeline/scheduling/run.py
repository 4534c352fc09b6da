"""`run_tasks`: every task once, wherever it is to run."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from pipeline.scheduling.interruption import StopRequest
from pipeline.scheduling.threads import run_in_threads
from pipeline.scheduling.types import OpenWorker, Remedies, ResultT, TaskT
from pipeline.scheduling.where import Where


def run_tasks(
    tasks: Iterable[TaskT],
    open_worker: OpenWorker[TaskT, ResultT],
    *,
    where: Where,
    stop: StopRequest | None = None,
    split: Callable[[TaskT], Sequence[TaskT]],
    give_up: Callable[[TaskT], ResultT],
) -> Iterator[ResultT]:
    """Run every task, and again where its worker dies.

    A worker that dies takes the tasks in its hands with it; they are run again. A task that lost
    2 workers is split, and its parts each have a worker for themselves; a part that kills 5 of
    those and cannot be split is given up; where workers also die of something else, up to 40.

    Args:
        tasks: picklable values, each safe to run twice; read no further ahead than there are
            hands, so that memory does not grow with their number.
        open_worker: opens a worker in its process, with its first task; picklable, unless the work
            is done in this process. What it gives is called from several threads at once.
        where: the place; see `Where`.
        stop: looked at before every task; once requested, no further task starts, and those in
            hand are finished.
        split: task -> smaller tasks; one or none if it cannot be made smaller.
        give_up: task -> its result, for a task that kills every worker.

    Returns:
        Iterator over the results, in the order in which tasks finish; nothing runs until it is
        read.

    Raises:
        ConfigError: the scheduler cannot be reached, or runs other versions.
        BackendError: SLURM or its package is not there.
        ResourceError: workers die whatever they do, or there is none left.
        Exception: whatever a task or ``open_worker`` raises; no further task starts.
    """
    stop = stop or StopRequest()
    if not (where.workers or where.scheduler or where.slurm):
        return run_in_threads(tasks, open_worker, hands=where.hands, stop=stop)
    # dask takes a while to import.
    from pipeline.scheduling.dask_run import run_on_dask

    remedies = Remedies(split, give_up)
    return run_on_dask(tasks, open_worker, where=where, stop=stop, remedies=remedies)
