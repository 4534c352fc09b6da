"""Which names and paths from outside are safe to use: only those that stay below the root.

Reading a split list or a folder must never open a file that its owner did not put below the root,
and never block on a pipe or a device.
"""

import os
import stat
from pathlib import Path

from pipeline.errors import ManifestError

MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 1024


def check_text(text: str, *, what: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """Return ``text`` if it is printable, not empty, not padded, and short enough.

    Args:
        text: a name from a file or a folder.
        what: the words for the error message, e.g. ``class name``.
        max_bytes: limit in bytes of UTF-8.

    Returns:
        ``text``, unchanged.

    Raises:
        ManifestError: it is not.
    """
    if not text or text != text.strip() or not text.isprintable():
        raise ManifestError(
            f"{what} {_shown(text)} is empty, padded or not printable; "
            "names need printable characters; rename it"
        )
    if len(text.encode()) > max_bytes:
        raise ManifestError(
            f"{what} {_shown(text)} has {len(text.encode())} bytes; "
            f"at most {max_bytes} are allowed; shorten it"
        )
    return text


def check_name(text: str, *, what: str) -> str:
    """Return ``text`` if it can be the name of one folder.

    Args:
        text: a name from a file or a folder.
        what: the words for the error message, e.g. ``class name``.

    Returns:
        ``text``, unchanged.

    Raises:
        ManifestError: it holds a separator, or is not printable, or too long.
    """
    check_text(text, what=what)
    if "/" in text or "\\" in text or text in {".", ".."}:
        raise ManifestError(f"{what} {_shown(text)} is a path; a plain name is needed; rename it")
    return text


def check_relative(text: str, *, what: str, max_bytes: int = MAX_PATH_BYTES) -> str:
    """Return ``text`` if it is a plain POSIX path that stays below its root by its spelling.

    Args:
        text: a path or a video id from a file.
        what: the words for the error message, e.g. ``path``.
        max_bytes: limit in bytes of UTF-8.

    Returns:
        ``text``, unchanged.

    Raises:
        ManifestError: it is absolute, a URL, a Windows path, begins with ``~`` or ``$``, or has
            ``.`` or ``..`` in it.
    """
    check_text(text, what=what, max_bytes=max_bytes)
    parts = text.split("/")
    drive = len(text) > 1 and text[1] == ":" and text[0].isalpha()
    unsafe = "\\" in text or "://" in text or drive or text[0] in "~$"
    if unsafe or any(part in {"", ".", ".."} for part in parts):
        raise ManifestError(
            f"{what} {_shown(text)} is not a plain path below the folder; "
            "only relative paths with / and without .. are read; write it so"
        )
    return text


def check_inside(root: Path, path: str, *, is_link: bool | None = None) -> None:
    """Refuse what lies below ``root`` by name only, and what is neither file nor folder.

    Args:
        root: the videos root with its links resolved (``Path.resolve``).
        path: absolute path, spelled below ``root``.
        is_link: whether the last part is a link, where the caller knows; None to find out.

    Raises:
        ManifestError: links lead out of the root or nowhere, or it is a pipe, a socket or a device.
    """
    if is_link is not False:
        target = os.path.realpath(path)
        if os.path.commonpath((root, target)) != str(root):
            kind = "folder" if os.path.isdir(target) else "file"
            raise ManifestError(
                f"{_shown(path)} leads out of {_shown(str(root))}; "
                f"only files below that folder are read; copy the {kind} there"
            )
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as fault:
        raise ManifestError(
            f"{_shown(path)} cannot be read ({type(fault).__name__}); "
            "a file or a folder is needed; repair or remove it"
        ) from fault
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise ManifestError(
            f"{_shown(path)} is a pipe, a socket or a device; "
            "a file or a folder is needed; remove it"
        )


def _shown(text: str) -> str:
    # Escapes control characters and cuts: names from outside must not write on the terminal.
    return ascii(text if len(text) <= 120 else f"{text[:100]}...")
