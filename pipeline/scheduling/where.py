"""Where work runs: plain, picklable settings, checked when they are made."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class SlurmSettings:
    """What is asked of SLURM; None leaves a value to the cluster's own default."""

    workers: int = 1
    """Jobs, each with one worker process."""
    cores: int = 4
    """CPU cores of a job."""
    memory: str = "16GiB"
    """Memory of a job."""
    walltime: str = "24:00:00"
    gpus: int = 0
    """GPUs of a job."""
    partition: str | None = None
    account: str | None = None
    options: tuple[str, ...] = ()
    """Further directives, such as ``--constraint=a100``."""
    interface: str | None = None
    """Network interface that reaches the nodes, such as ``ib0``."""
    folder: Path = Path("slurm")
    """Folder on a disk that all nodes share: temporary keys while the jobs run, and their logs."""

    def __post_init__(self) -> None:
        for name in ("workers", "cores"):
            _at_least(1, f"slurm {name}", getattr(self, name))
        _at_least(0, "slurm gpus", self.gpus)


@dataclass(frozen=True, kw_only=True, slots=True)
class Where:
    """One place where work runs."""

    workers: int = 0
    """Local processes; 0 works in threads of this process and opens no socket."""
    hands: int = 3
    """Tasks that one worker has in hand at once, each in a thread."""
    scheduler: str | None = None
    """Address of a dask scheduler: tls://HOST:PORT, or tcp:// on this machine only."""
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    slurm: SlurmSettings | None = None

    def __post_init__(self) -> None:
        _at_least(0, "workers", self.workers)
        _at_least(1, "hands", self.hands)
        places = {
            "workers": self.workers or None,
            "scheduler": self.scheduler,
            "slurm": self.slurm,
        }
        chosen = [name for name, value in places.items() if value is not None]
        if len(chosen) > 1:
            raise ConfigError(
                f"{' and '.join(chosen)} were given together; one place to work was needed; "
                "leave out all but one"
            )
        if self.scheduler is not None:
            self._check_address(self.scheduler)
        elif self.tls_files:
            raise ConfigError(
                f"{', '.join(map(str, self.tls_files))}: TLS files without a scheduler; they are "
                "for connecting to one; pass --scheduler tls://HOST:8786 too"
            )

    @property
    def tls_files(self) -> tuple[Path, ...]:
        """Those of the three TLS files that are given."""
        return tuple(path for path in (self.tls_ca, self.tls_cert, self.tls_key) if path)

    def _check_address(self, address: str) -> None:
        protocol, host, port = _parts(address)
        if protocol == "tls" and host and port:
            self._check_tls_files(address)
        elif protocol != "tcp" or not host or not port:
            raise ConfigError(
                f"scheduler {address!r} is no address of one; needed: tls://HOST:PORT, or "
                "tcp://HOST:PORT on this machine; pass e.g. --scheduler tcp://127.0.0.1:8786"
            )
        elif not _is_loopback(host):
            # Whoever can reach a tcp scheduler can run code as its user.
            raise ConfigError(
                f"scheduler {address!r} would be reached without encryption or passwords; needed: "
                f"TLS beyond this machine; pass --scheduler tls://{host}:{port} --tls-ca FILE "
                "--tls-cert FILE --tls-key FILE"
            )
        elif self.tls_files:
            raise ConfigError(
                f"scheduler {address!r} came with TLS files, which tcp does not use; needed: none, "
                f"or tls; pass --scheduler tls://{host}:{port}, or leave them out"
            )

    def _check_tls_files(self, address: str) -> None:
        if len(self.tls_files) < 3:
            raise ConfigError(
                f"scheduler {address!r} came with {len(self.tls_files)} of 3 TLS files; needed: "
                "all; pass --tls-ca FILE --tls-cert FILE --tls-key FILE"
            )
        for path in self.tls_files:
            if not path.is_file():
                raise ConfigError(
                    f"TLS file {str(path)!r} is absent; a PEM file was needed; check the path"
                )


def _parts(address: str) -> tuple[str, str | None, int | None]:
    """Protocol, host and port; host or port is None where the address has none."""
    try:
        url = urlsplit(address)
        return url.scheme, url.hostname, url.port
    except ValueError:
        return "", None, None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _at_least(minimum: int, name: str, value: int) -> None:
    if value < minimum:
        raise ConfigError(f"{name}={value} is too small; at least {minimum} was needed; raise it")
