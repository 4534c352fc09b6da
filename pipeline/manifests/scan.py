"""Which videos lie in a folder: one pass of ``os.scandir``; nothing is opened."""

import os
from collections.abc import Container, Iterator
from pathlib import Path

from pipeline.errors import ManifestError
from pipeline.manifests.paths import check_inside, check_name
from pipeline.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES


def resolve_root(root: Path, *, needed: str) -> Path:
    """Videos root with its own links resolved; the root itself may be a link to another disk.

    Args:
        root: the folder as the user gave it.
        needed: the layout it should have, for the error message.

    Returns:
        Absolute path without links.

    Raises:
        ManifestError: it is not a folder.
    """
    if not root.is_dir():
        raise ManifestError(
            f"videos folder {str(root)!a} is absent; {needed} is needed below it; "
            "put the videos there or pass another folder"
        )
    return root.resolve()


def scan_folders(root: Path, below: str = "") -> list[tuple[str, str]]:
    """Name and path below ``root`` of each folder, hidden ones left out, sorted.

    Args:
        root: a resolved videos root.
        below: POSIX path below ``root`` of the folder to look into.

    Returns:
        Name, and POSIX path below ``root``.

    Raises:
        ManifestError: a folder is a link that leaves the root, or cannot be read.
    """
    found = []
    for entry in _entries(root, below):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        check_inside(root, entry.path, is_link=entry.is_symlink())
        found.append((entry.name, f"{below}/{entry.name}" if below else entry.name))
    return sorted(found)


def scan_clips(
    root: Path, below: str = "", *, only: Container[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Clip name and path below ``root`` of each video file and each folder of frames, unsorted.

    Args:
        root: a resolved videos root.
        below: POSIX path below ``root`` of the folder to look into.
        only: clip names to report; None for all.

    Yields:
        tuple[str, str]: Clip name, and POSIX path below ``root``.

    Raises:
        ManifestError: a name is unsafe, a link leaves the root, or a video is a pipe or a device.
    """
    for entry in _entries(root, below):
        stem, suffix = os.path.splitext(entry.name)
        is_video = suffix.lower() in VIDEO_SUFFIXES
        clip = stem if is_video else entry.name
        if entry.name.startswith(".") or (only is not None and clip not in only):
            continue
        path = f"{below}/{entry.name}" if below else entry.name
        if entry.is_dir():
            check_inside(root, entry.path, is_link=entry.is_symlink())
            if _holds_frames(root, path):
                yield check_name(entry.name, what="clip name"), path
        elif is_video:
            if not entry.is_file(follow_symlinks=False):
                check_inside(root, entry.path)
            yield check_name(clip, what="clip name"), path


def _holds_frames(root: Path, below: str) -> bool:
    # Every frame is looked at: one that links out of the root must not reach the decoder.
    found = False
    for entry in _entries(root, below):
        if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            if not entry.is_file(follow_symlinks=False):
                check_inside(root, entry.path)
            found = True
    return found


def _entries(root: Path, below: str) -> Iterator["os.DirEntry[str]"]:
    folder = os.path.join(root, below) if below else str(root)
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise ManifestError(
            f"folder {folder!a} cannot be read ({reason}); a readable folder is needed; "
            "mend its rights or move it away"
        ) from fault
