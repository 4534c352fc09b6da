"""A dask scheduler that runs already, with the workers that it has."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dask
from distributed import Client, Security

from pipeline.errors import ConfigError
from pipeline.scheduling.closing import closed_client
from pipeline.scheduling.cluster import PLUGIN_PREFIX, Cluster
from pipeline.scheduling.where import Where

CONNECT_SECONDS = 20.0
PATIENCE_SECONDS = 60.0
"""How long a scheduler may be without a worker."""


@contextmanager
def existing_cluster(where: Where) -> Iterator[Cluster]:
    """Connect to ``where.scheduler``.

    Args:
        where: settings.

    Yields:
        Cluster: The cluster; its workers live on.

    Raises:
        ConfigError: nothing answers, or what answers runs other versions.
    """
    address = where.scheduler
    assert address is not None
    with (
        # Also how long a scheduler is waited for that does not answer any more.
        dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_SECONDS}s"}),
        closed_client(_connect(address, _security(where))) as client,
    ):
        _check_versions(address, client.get_versions())
        _close_dead_runs(client)
        yield Cluster(client=client, name=address, patience_seconds=PATIENCE_SECONDS)


def _close_dead_runs(client: Client) -> None:
    """Close what runs that were killed left open in the workers: their models fill the GPUs."""
    prefix = PLUGIN_PREFIX

    # Pickled by value, as functions inside functions are: a scheduler may lack i2st.
    def of_dead_runs(dask_scheduler: Any) -> list[str]:
        plugins, clients = dask_scheduler.worker_plugins, dask_scheduler.clients
        ours = [name for name in plugins if name.startswith(prefix)]
        return [name for name in ours if name.removeprefix(prefix) not in clients]

    # A scheduler may refuse to run functions; then they stay until the workers are restarted.
    with suppress(OSError, RuntimeError, ValueError, KeyError):
        for name in client.run_on_scheduler(of_dead_runs):
            client.unregister_worker_plugin(name)


def _connect(address: str, security: Security | None) -> Client:
    try:
        return Client(address, security=security, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no dask scheduler answers at {address} ({error}); needed: a running one that these "
            "TLS files belong to, if it is tls; start one with `dask scheduler`, or check the "
            "address"
        ) from error


def _security(where: Where) -> Security | None:
    if not where.tls_files:
        return None
    return Security(
        tls_ca_file=str(where.tls_ca),
        tls_client_cert=str(where.tls_cert),
        tls_client_key=str(where.tls_key),
        require_encryption=True,
    )


def _check_versions(address: str, versions: dict[str, Any]) -> None:
    """Tasks and results are only understood by the same Python and dask."""
    ours = _of_interest(versions["client"])
    others = {"the scheduler": versions["scheduler"], **versions["workers"]}
    for name, theirs in others.items():
        if _of_interest(theirs) != ours:
            raise ConfigError(
                f"{name} at {address} runs {_of_interest(theirs)}; {ours} was needed, as here; "
                "start the scheduler and its workers from this environment"
            )


def _of_interest(versions: dict[str, Any]) -> str:
    packages = dict(versions["packages"])
    python = ".".join(str(packages["python"]).split(".")[:2])
    return f"Python {python}, dask {packages['dask']}, distributed {packages['distributed']}"
