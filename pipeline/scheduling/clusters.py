"""Dask clusters, opened for one run and left again; none listens beyond 127.0.0.1 without TLS."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from distributed import Client

from pipeline.scheduling.types import OpenWorker
from pipeline.scheduling.where import Where

START_SECONDS = 120.0
"""How long processes may take to start, on a busy machine."""

PLUGIN_PREFIX = "i2st-"

_RESTORE_SECONDS = 1.0


@dataclass(kw_only=True, slots=True)
class Cluster:
    """A client of a cluster, and how to treat it."""

    client: Client
    name: str
    """As the user knows it."""
    patience_seconds: float
    """How long there may be no worker."""
    is_local: bool = False
    """Whether its workers are processes of this one, which get its signals and end with it."""
    scale: Callable[[], Any] | None = None
    """Replaces workers that are gone for good."""
    _restored_at: float = field(default_factory=time.monotonic)

    def restore(self) -> None:
        """Replace workers that are gone for good, at most every second."""
        if self.scale is not None and time.monotonic() > self._restored_at + _RESTORE_SECONDS:
            self._restored_at = time.monotonic()
            self.scale()

    @property
    def plugin(self) -> str:
        """Name of this run's plugin; it tells the client, so that dead runs can be told."""
        return PLUGIN_PREFIX + self.client.id

    def leave(self) -> None:
        """Close what was opened in workers that live on."""
        if not self.is_local:
            # A scheduler that is gone, or a worker that never had it, needs no farewell, and the
            # next run closes what is left (see existing_cluster).
            with suppress(Exception):
                self.client.unregister_worker_plugin(self.plugin)


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
