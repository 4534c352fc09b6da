"""Class name -> PromptSet, from four sources: user YAML, curated table, placeholders, parser."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, ManifestError
from pipeline.manifests.schema import class_prompts
from pipeline.manifests.text import did_you_mean, read_text, read_yaml
from pipeline.manifests.types import ClassPrompts, Manifest, Video
from pipeline.prompt_words import label_words, objects_of_label, objects_of_placeholders

MODES = ("nouns", "raw_label", "actor_only")
MAX_LABEL_FILE_BYTES = 256_000_000
_LABEL_FILES = ("train.json", "validation.json")
_LABEL_FOLDERS = ("", "labels")
_LABEL_PREFIXES = ("", "something-something-v2-")
_SYNONYMS = {
    # CLIP's "person" answers weakly on clothes: SCLIP and NACLIP (configs/cls_voc21.txt) take
    # the maximum over these.
    "person": (
        "person",
        "person in shirt",
        "person in jeans",
        "person in dress",
        "person in sweater",
        "person in skirt",
        "person in jacket",
    )
}


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSet:
    """Nouns that name what acts and what is acted on."""

    key: str
    """Class name or video id."""
    actor: tuple[str, ...]
    """Synonyms of the actor; empty where the camera acts."""
    objects: tuple[str, ...]
    """At most three nouns, one slot each."""
    source: str
    """yaml, table, placeholders or parser."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTables:
    """What comes from outside the package: a user's table, and placeholders of videos."""

    user: Mapping[str, ClassPrompts] = field(default_factory=dict)
    """Class name or video id -> prompts."""
    placeholders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Video id -> what fills the gaps of its template."""


def prompts_for(
    manifest: Manifest,
    video: Video,
    *,
    user_table: PromptTables | None = None,
    mode: str = "nouns",
) -> PromptSet:
    """Prompts of one video: the first source that names objects decides, each may name the actor.

    Args:
        manifest: holds the curated table and the dataset's usual actor.
        video: its id, then its class, is looked up.
        user_table: the user's own prompts and the dataset's placeholders.
        mode: ``nouns``; ``actor_only`` for no objects; ``raw_label`` for the class name as the
            one prompt.

    Returns:
        Actor with its synonyms, objects, and which source named the objects.

    Raises:
        ConfigError: ``mode`` is unknown.
    """
    tables = user_table or PromptTables()
    if mode not in MODES:
        raise ConfigError(
            f"unknown prompt mode {mode!r}; known: {', '.join(MODES)}; pass one of these"
        )
    if mode == "raw_label":
        label = label_words(video.class_name)
        return PromptSet(key=video.class_name, actor=(label,), objects=(), source="parser")
    key, objects, source = _objects(manifest, video, tables)
    actor = _actor(manifest, video, tables)
    names = tuple(name for noun in actor for name in _SYNONYMS.get(noun, (noun,)))
    if mode == "actor_only":
        objects = ()
    return PromptSet(key=key, actor=names, objects=objects, source=source)


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


def class_prompt_sets(
    manifest: Manifest, *, user: Path | None = None, mode: str = "nouns"
) -> list[PromptSet]:
    """Prompts of every class, as a video without prompts of its own gets them.

    Args:
        manifest: the dataset.
        user: YAML of the user's prompts.
        mode: as in ``prompts_for``.

    Returns:
        One per class, in manifest order.

    Raises:
        ConfigError: ``mode`` is unknown.
        ManifestError: ``user`` is malformed or names an unknown class.
    """
    tables = load_prompt_tables(manifest, None, user=user)
    return [
        prompts_for(
            manifest,
            Video(video_id=name, path=name, class_name=name, split=manifest.split_of(name)),
            user_table=tables,
            mode=mode,
        )
        for name in manifest.class_names
    ]


def prompts_sha256(prompts: Iterable[PromptSet]) -> str:
    """Hash of a set of prompts, whatever their order, for the fingerprint of masks."""
    rows = sorted({json.dumps(asdict(prompt), sort_keys=True) for prompt in prompts})
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _objects(
    manifest: Manifest, video: Video, tables: PromptTables
) -> tuple[str, tuple[str, ...], str]:
    name = video.class_name
    for key in (video.video_id, name):
        entry = tables.user.get(key)
        if entry is not None and entry.objects is not None:
            return key, entry.objects, "yaml"
    curated = manifest.prompts.get(name)
    if curated is not None and curated.objects is not None:
        return name, curated.objects, "table"
    if video.video_id in tables.placeholders:
        filled = objects_of_placeholders(tables.placeholders[video.video_id])
        return video.video_id, filled, "placeholders"
    return name, objects_of_label(name), "parser"


def _actor(manifest: Manifest, video: Video, tables: PromptTables) -> tuple[str, ...]:
    name = video.class_name
    for entry in (
        tables.user.get(video.video_id),
        tables.user.get(name),
        manifest.prompts.get(name),
    ):
        if entry is not None and entry.actor is not None:
            return entry.actor
    return manifest.actor


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
