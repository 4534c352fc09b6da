"""A dask cluster as a run sees it: its client, and how to treat it."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from distributed import Client

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
