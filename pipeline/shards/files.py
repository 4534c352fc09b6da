"""Files that are whole or absent: atomic writing, and reading that follows no link."""

import errno
import hashlib
import mmap
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from pipeline.errors import ConfigError, I2STError, ResourceError, ShardError
from pipeline.shards.failpoints import failpoint

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENFILE, errno.EMFILE, errno.ENOMEM}
_TOO_MANY = {errno.EMFILE, errno.ENFILE}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENOENT}
_FORBIDDEN |= {errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.ENAMETOOLONG}
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write_atomically(path: Path, data: bytes | memoryview, *, kind: str) -> None:
    """Write a file so that a reader sees all of it or none, whatever dies in between.

    Args:
        path: final place; its folder exists.
        data: the whole content.
        kind: shard, sidecar or index; names the failpoints.

    Raises:
        ResourceError: the disk is full or fails; the temporary file is removed.
        ConfigError: the folder cannot be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        _write_and_sync(temporary, memoryview(data), kind)
        os.replace(temporary, path)
        failpoint(f"{kind}.renamed")
        sync_folder(path.parent)
        failpoint(f"{kind}.folder_fsynced")
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise explain_os_error(error, path, len(data)) from error
        raise


def _write_and_sync(temporary: Path, data: memoryview, kind: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_FOLLOW
    descriptor = os.open(temporary, flags, 0o666)
    try:
        failpoint(f"{kind}.tmp_open")
        half = len(data) // 2
        _write_all(descriptor, data[:half])
        failpoint(f"{kind}.half_written")
        _write_all(descriptor, data[half:])
        failpoint(f"{kind}.written")
        os.fsync(descriptor)
        failpoint(f"{kind}.fsynced")
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def sync_folder(folder: Path) -> None:
    """Force a folder's entries to disk; a rename is not durable before that."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def explain_os_error(error: OSError, path: Path, needed_bytes: int) -> I2STError:
    """Return the user's view of a failed write."""
    if error.errno in _FORBIDDEN:
        return ConfigError(
            f"cannot write {path} ({error.strerror}); a writable folder was needed; "
            "pass another --out"
        )
    try:
        free = f"{shutil.disk_usage(path.parent).free} bytes are free"
    except OSError:
        free = "free space is unknown"
    if error.errno in _FULL:
        return ResourceError(
            f"no room for {path}: {needed_bytes} bytes needed, {free} ({error.strerror}); "
            "make room and run the same command again, finished shards are kept"
        )
    return ResourceError(
        f"writing {path} failed ({error.strerror}), {needed_bytes} bytes needed, {free}; "
        "a healthy disk was needed; check it and run the same command again"
    )


def read_regular(path: Path, *, max_bytes: int) -> bytes:
    """Return a file's bytes; a link, pipe or device is refused without blocking.

    Args:
        path: of the file.
        max_bytes: a larger file is refused unread.

    Returns:
        The whole content.

    Raises:
        ShardError: absent, not a regular file, or larger than ``max_bytes``.
        ResourceError: the disk fails, or too many files are open.
    """
    descriptor = open_regular(path)
    with os.fdopen(descriptor, "rb") as file:
        size = os.fstat(descriptor).st_size
        if size > max_bytes:
            raise ShardError(
                f"{path} has {size} bytes; at most {max_bytes} were expected; "
                "it was not written by i2st, delete it"
            )
        try:
            return file.read()
        except OSError as error:
            raise failed_read(error, path) from error


def open_regular(path: Path) -> int:
    """Open a regular file for reading.

    Args:
        path: of the file.

    Returns:
        Its descriptor, which the caller closes.

    Raises:
        ShardError: absent, a link, or not a regular file.
        ResourceError: the disk fails, or too many files are open.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _NO_FOLLOW)
    except OSError as error:
        if error.errno in {errno.EIO, *_TOO_MANY}:
            raise failed_read(error, path) from error
        _refuse(path, error.strerror or "unreadable")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        _refuse(path, "not a regular file")
    return descriptor


def failed_read(error: OSError, path: Path) -> ResourceError:
    """Return the user's view of a failed read."""
    remedy = "a healthy disk was needed; check it"
    if error.errno in _TOO_MANY:
        remedy = "fewer open files were needed; allow more, as with `ulimit -n 8192`,"
    return ResourceError(
        f"reading {path} failed ({error.strerror}); {remedy} and run the same command again"
    )


def _refuse(path: Path, why: str) -> NoReturn:
    raise ShardError(
        f"cannot read {path} ({why}); a regular file was needed; "
        "restore it, or run `i2st extract` again"
    )


def sha256_of(descriptor: int) -> str:
    """Return the sha256 of an open file."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return hashlib.sha256().hexdigest()
    digest = hashlib.sha256()
    step = 1 << 24
    with mmap.mmap(descriptor, size, access=mmap.ACCESS_READ) as view:
        for start in range(0, size, step):
            digest.update(view[start : start + step])
    return digest.hexdigest()
