"""A dask cluster of SLURM jobs, through dask-jobqueue, encrypted with keys made for this run."""

import logging
import math
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from distributed import Client, Security

from pipeline.errors import BackendError
from pipeline.scheduling.closing import closed_client, closed_cluster
from pipeline.scheduling.cluster import START_SECONDS, Cluster
from pipeline.scheduling.where import SlurmSettings

logger = logging.getLogger(__name__)


@contextmanager
def slurm_cluster(settings: SlurmSettings, *, hands: int) -> Iterator[Cluster]:
    """Submit the jobs; a job has one worker process with a thread for every hand.

    Args:
        settings: what is asked of SLURM.
        hands: tasks that a worker has in hand at once.

    Yields:
        Cluster: The cluster; it may be long before it has a worker, and its jobs are cancelled at
            the end.

    Raises:
        BackendError: SLURM, or a package that is needed for it, is not there, or refuses the job.
    """
    _check_sbatch()
    # On a disk that the nodes see; SLURM opens the logs beside the keys before the job runs.
    folder = settings.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="keys-", dir=folder) as keys,
        closed_cluster(_dask_cluster(settings, hands, folder, Path(keys))) as dask_cluster,
        closed_client(Client(dask_cluster, set_as_default=False)) as client,
    ):
        _check_job(dask_cluster.job_script())
        dask_cluster.scale(settings.workers)
        logger.info("asked SLURM for %d jobs; waiting for the first", settings.workers)
        yield Cluster(
            client=client,
            name=f"{settings.workers} SLURM jobs",
            patience_seconds=math.inf,
            scale=partial(dask_cluster.scale, settings.workers),
        )


def _check_sbatch() -> None:
    if shutil.which("sbatch") is None:
        raise BackendError(
            "sbatch is not on this machine's PATH; a machine that submits SLURM jobs was needed; "
            "run this on a login node, or pass --workers N for processes of this machine"
        )


def _dask_cluster(settings: SlurmSettings, hands: int, logs: Path, keys: Path) -> Any:
    try:
        from dask_jobqueue.slurm import SLURMCluster

        security = _security(keys)
    except ImportError as error:
        raise BackendError(
            f"SLURM needs a package that is not installed ({error}); dask-jobqueue and "
            "cryptography were needed; run: pip install 'i2st[slurm]'"
        ) from error
    return SLURMCluster(
        processes=1,
        # Of dask: threads. The cores that SLURM is asked for are job_cpu.
        cores=hands,
        job_cpu=settings.cores,
        memory=settings.memory,
        walltime=settings.walltime,
        queue=settings.partition,
        account=settings.account,
        job_extra_directives=_directives(settings),
        interface=settings.interface,
        log_directory=str(logs),
        security=security,
        # The status pages are not encrypted.
        scheduler_options={"dashboard_address": "127.0.0.1:0"},
        worker_extra_args=["--dashboard-address", "127.0.0.1:0"],
        death_timeout=START_SECONDS,
        silence_logs=50,
    )


def _security(folder: Path) -> Security:
    """New keys; what the workers need of them is written to files that only their owner reads."""
    security = Security.temporary()
    for role in ("tls_ca_file", "tls_worker_cert", "tls_worker_key"):
        file = folder / f"{role}.pem"
        file.touch(0o600)
        file.write_text(getattr(security, role))
        setattr(security, role, str(file))
    return security


def _directives(settings: SlurmSettings) -> list[str]:
    gpus = [f"--gres=gpu:{settings.gpus}"] if settings.gpus else []
    return [*gpus, *settings.options]


def _check_job(script: str) -> None:
    """Let SLURM look at the job first; dask would try again and again without a word."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "i2st.sh"
        file.write_text(script)
        answer = subprocess.run(
            ["sbatch", "--test-only", str(file)], capture_output=True, text=True, check=False
        )
    if answer.returncode:
        detail = " ".join(answer.stderr.split()) or f"exit status {answer.returncode}"
        raise BackendError(
            f"SLURM refuses the job ({detail}); a partition, account and limits that it accepts "
            "were needed; see --slurm-partition, --slurm-account, --slurm-option"
        )
