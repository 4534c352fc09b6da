"""Prompts from outside the package: a user's YAML, and Something-Something's placeholders."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline.errors import ManifestError
from pipeline.manifests.lists import read_imported
from pipeline.manifests.schema import class_prompts
from pipeline.manifests.text import read_text, read_yaml
from pipeline.manifests.types import ClassPrompts, Manifest, Video
from pipeline.nearest_names import did_you_mean
from pipeline.prompts import PromptTables

MAX_LABEL_FILE_BYTES = 256_000_000
_LABEL_FILES = ("train.json", "validation.json")
_LABEL_FOLDERS = ("", "labels")
_LABEL_PREFIXES = ("", "something-something-v2-")


def load_prompt_tables(
    manifest: Manifest,
    root: Path | None,
    *,
    user: Path | None = None,
    video_ids: Collection[str] = (),
) -> PromptTables:
    """Read what comes from outside the package: the user's table, and placeholders on disk.

    Args:
        manifest: the dataset.
        root: the videos root; Something-Something's ``labels/train.json`` and ``validation.json``
            are looked for there, also with ``something-something-v2-`` in front. None to look
            for none.
        user: YAML with class names or video ids as keys, and as values a list of objects or
            ``{actor: [...], objects: [...]}``.
        video_ids: the ids that ``user`` may name beside the classes.

    Returns:
        Both tables; empty where nothing was given or found.

    Raises:
        ManifestError: a file is malformed, or ``user`` names an unknown class or video.
    """
    table = _read_user(user, manifest, video_ids) if user is not None else {}
    # Only datasets without curated objects have placeholders; no other folder is searched.
    wanted = root is not None and any(
        prompts.objects is None for prompts in manifest.prompts.values()
    )
    return PromptTables(
        user=table, placeholders=_read_placeholders(root) if wanted and root else {}
    )


def named_video(manifest: Manifest, root: Path, video_id: str) -> Video:
    """Find the class of a video by its id, whether or not its file is there.

    Args:
        manifest: the dataset.
        root: the videos root, which holds the imported lists of a dataset that has lists.
        video_id: ``<class>/<clip>``, or an id of the dataset's list.

    Returns:
        The video; its path is not looked up.

    Raises:
        ManifestError: the dataset has no such video, or its lists were not imported.
    """
    if manifest.edition:
        class_name, split = read_imported(manifest, root).get(video_id, ("", ""))
        needed = f"an id in the lists below {root}"
    else:
        class_name = video_id.partition("/")[0]
        split = manifest.split_of(class_name) if class_name in manifest.class_names else ""
        needed = "<class>/<clip>"
    if not split:
        raise ManifestError(
            f"{video_id!a:.80} is no video of {manifest.name}; {needed} was needed; correct it"
        )
    return Video(video_id=video_id, path=video_id, class_name=class_name, split=split)


def _read_user(
    path: Path, manifest: Manifest, video_ids: Collection[str]
) -> dict[str, ClassPrompts]:
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise ManifestError(
            f"{path} is no mapping of class names to objects; write `class: [noun]` lines"
        )
    classes = manifest.class_names
    known = {*classes, *video_ids}
    for key in raw:
        if not isinstance(key, str) or key not in known:
            raise ManifestError(
                f"{path} names {key!a:.80}, no class or video of {manifest.name}"
                f"{did_you_mean(str(key), classes)}; correct it"
            )
    return {key: class_prompts(entry, f"{path}: {key!a}") for key, entry in raw.items()}


def _read_placeholders(root: Path) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for folder in _LABEL_FOLDERS:
        for prefix in _LABEL_PREFIXES:
            for name in _LABEL_FILES:
                path = root / folder / f"{prefix}{name}"
                if path.is_file():
                    found.update(_placeholders(path))
    return found


def _placeholders(path: Path) -> dict[str, tuple[str, ...]]:
    fault = (
        f"{path} is not Something-Something's list of videos; "
        "entries with id and placeholders are needed; download it again"
    )
    try:
        entries: Any = json.loads(read_text(path, max_bytes=MAX_LABEL_FILE_BYTES))
    except (ValueError, RecursionError) as error:
        raise ManifestError(fault) from error
    if not isinstance(entries, list):
        raise ManifestError(fault)
    found = {}
    for entry in entries:
        filled = entry.get("placeholders") if isinstance(entry, dict) else None
        if not isinstance(filled, list) or not all(isinstance(text, str) for text in filled):
            raise ManifestError(fault)
        found[str(entry.get("id", ""))] = tuple(filled)
    return found
