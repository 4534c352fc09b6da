"""Where work runs: in this process, in local processes, under a dask scheduler or under SLURM.

The results are the same everywhere; only plain data travels.

where         settings: one place at a time    run            `run_tasks`, for every place
threads       hands of this process            clusters       dask clusters, opened and left
dask_run      tasks onto dask's workers        dask_worker    what runs inside a dask worker
dask_hands    what each worker has in hand     interruption   stopping between two tasks
blame         which task killed a worker       evidence       what deaths prove
closing       leaving clusters for certain     types          what every place is given
"""

from pipeline.scheduling.run import run_tasks
from pipeline.scheduling.where import SlurmSettings, Where

__all__ = ["SlurmSettings", "Where", "run_tasks"]
