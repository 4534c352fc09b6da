"""One extraction at a time in a folder: an flock, which the kernel drops when its holder dies."""

import errno
import fcntl
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from pipeline.errors import ConfigError
from pipeline.shards.files import explain_os_error

LOCK_NAME = ".lock"


class FolderLock:
    """Holds ``folder/.lock`` while entered; makes the folder if it is absent.

    The file stays behind, since removing it would let two holders lock two different files. A lock
    left by a killed process is free at once. A forked child does not keep it.

    Args:
        folder: that one process at a time may write.
        work: what such a process does, for the message to the others.
        flag: by which they can name another folder.
    """

    def __init__(self, folder: Path, *, work: str = "extraction", flag: str = "--out") -> None:
        self.path = Path(folder) / LOCK_NAME
        self._work, self._flag = work, flag
        self._descriptor: int | None = None

    def __enter__(self) -> "FolderLock":
        """Take the lock.

        Returns:
            This lock.

        Raises:
            ConfigError: another process holds it, or the folder cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            descriptor = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise explain_os_error(error, self.path, 0) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _sign(descriptor)
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise explain_os_error(error, self.path, 0) from error
            raise ConfigError(
                f"{self.path.parent} is locked by {holder}; one {self._work} at a time was needed; "
                f"wait for it to end, or pass another {self._flag}"
            ) from None
        self._descriptor = descriptor
        os.register_at_fork(after_in_child=self._close)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lock."""
        self._close()

    def _close(self) -> None:
        # Closing, unlike LOCK_UN, leaves the lock with the parent when a forked child does it.
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder's lock right now; one that cannot be read counts as free."""
    try:
        descriptor = os.open(Path(folder) / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        # Shared, so that those who look do not take one another for holders.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(descriptor)
    return False


def _sign(descriptor: int) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"PID {os.getpid()} on {socket.gethostname()} since {since}".encode(), 0)


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, 200, 0).decode("utf-8", "replace")
    return "".join(c for c in text if c.isprintable()) or "another process"
