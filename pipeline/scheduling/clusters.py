"""Dask clusters, opened for one run and left again; none listens beyond 127.0.0.1 without TLS."""

from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from pipeline.scheduling.cluster import Cluster
from pipeline.scheduling.types import OpenWorker
from pipeline.scheduling.where import Where


def open_cluster(
    where: Where, open_worker: OpenWorker[Any, Any]
) -> AbstractContextManager[Cluster]:
    """Open the cluster that the settings name.

    Args:
        where: its place; not this process.
        open_worker: what will run there.

    Returns:
        Context manager; gives the cluster, and closes what it started.

    Raises:
        ConfigError: the scheduler cannot be reached, or runs other versions.
        BackendError: SLURM, or a package that is needed for it, is not there.
    """
    if where.slurm is not None:
        from pipeline.scheduling.slurm_cluster import slurm_cluster

        return slurm_cluster(where.slurm, hands=where.hands)
    if where.scheduler is not None:
        from pipeline.scheduling.existing_cluster import existing_cluster

        return existing_cluster(where)
    from pipeline.scheduling.local_cluster import local_cluster

    return local_cluster(where, _module_of(open_worker))


def _module_of(open_worker: Any) -> str:
    while isinstance(open_worker, partial):
        open_worker = open_worker.func
    return str(open_worker.__module__)
