"""Weight files that lie at one public address: downloaded once, checked, kept in a cache folder."""

import fcntl
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from typing import Any

from pipeline.errors import BackendError, ResourceError

PROBE_SECONDS = 5.0
"""Until a host that does not answer counts as absent."""
READ_SECONDS = 60.0
"""Until a download that stands still is given up."""
_BLOCK_BYTES = 1 << 20
_REPORT_SECONDS = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """A file at a public address."""

    title: str
    """What it is, for messages: ``SAM weights``."""
    name: str
    address: str
    """Of the folder that holds it."""
    sha256: str
    otherwise: str
    """What a user can do without it, for messages."""

    @property
    def url(self) -> str:
        """Where the file is read."""
        return f"{self.address}/{self.name}"


def cache_folder() -> Path:
    """$I2ST_CACHE, else ~/.cache/i2st."""
    named = os.environ.get("I2ST_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "i2st"


def fetch(file: PublishedFile) -> Path:
    """Path of the file in the cache folder; downloads it where it is not there yet.

    Several processes may ask at once: one downloads, the others wait for it.

    Args:
        file: what to fetch.

    Returns:
        The complete file, its sha256 checked when it was written.

    Raises:
        BackendError: it cannot be downloaded, or arrives with another sha256.
        ResourceError: the cache folder cannot take it.
    """
    path = cache_folder() / file.name
    if path.is_file():
        return path
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise _unreachable(file, "HF_HUB_OFFLINE is set")
    _check_host_answers(file)
    with _locked(path):
        if not path.is_file():
            _download(file, path)
    return path


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = (path.parent / f".{path.name}.lock").open("a")
    except OSError as error:
        raise _no_room(path, error) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check_host_answers(file: PublishedFile) -> None:
    request = urllib.request.Request(file.url, method="HEAD", headers={"User-Agent": "i2st"})
    try:
        urllib.request.urlopen(request, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # an answer; the download says what is wrong
    except (OSError, HTTPException) as error:
        raise _unreachable(file, str(getattr(error, "reason", error))) from error


def _download(file: PublishedFile, path: Path) -> None:
    """Write to a temporary name, check, rename; the lock is held."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        try:
            digest = _write(file, temporary)
            if digest == file.sha256:
                os.replace(temporary, path)
                return
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _no_room(path, error) from error
    raise BackendError(
        f"{file.url} arrived with sha256 {digest} and was removed; needed: {file.sha256}; run "
        f"again, or {file.otherwise}"
    )


def _write(file: PublishedFile, temporary: Path) -> str:
    """Sha256 of what was written and synced."""
    digest = sha256()
    with temporary.open("wb") as target:
        for block in _blocks(file):
            digest.update(block)
            target.write(block)
        target.flush()
        os.fsync(target.fileno())
    return digest.hexdigest()


def _blocks(file: PublishedFile) -> Iterator[bytes]:
    """Yield the file's bytes and report progress."""
    request = urllib.request.Request(file.url, headers={"User-Agent": "i2st"})
    try:
        with urllib.request.urlopen(request, timeout=READ_SECONDS) as reply:
            total = int(reply.headers.get("Content-Length") or 0)
            logger.warning("downloading %s, %s, once", file.url, _megabytes(total))
            yield from _reported(file, reply, total)
    except (OSError, HTTPException) as error:
        raise _unreachable(file, str(getattr(error, "reason", error))) from error


def _reported(file: PublishedFile, reply: Any, total: int) -> Iterator[bytes]:
    done, reported = 0, time.monotonic()
    while block := reply.read(_BLOCK_BYTES):
        yield block
        done += len(block)
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            logger.warning("%s: %s of %s", file.name, _megabytes(done), _megabytes(total))


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


def _unreachable(file: PublishedFile, reason: str) -> BackendError:
    return BackendError(
        f"{file.title} {file.name} are absent and cannot be downloaded from {file.address} "
        f"({reason}); needed: the file; put it into {cache_folder()}, or {file.otherwise}"
    )


def _no_room(path: Path, error: OSError) -> ResourceError:
    return ResourceError(
        f"cannot write {path}: {error.strerror}; needed: room for the weights; free some, or set "
        "I2ST_CACHE to a folder that has it"
    )
