"""Class name -> PromptSet, from four sources: user YAML, curated table, placeholders, parser."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field

from pipeline.errors import ConfigError
from pipeline.manifests.types import ClassPrompts, Manifest, Video
from pipeline.prompt_words import label_words, objects_of_label, objects_of_placeholders

MODES = ("nouns", "raw_label", "actor_only")
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


def class_prompt_sets(
    manifest: Manifest, *, user_table: PromptTables | None = None, mode: str = "nouns"
) -> list[PromptSet]:
    """Prompts of every class, as a video without prompts of its own gets them.

    Args:
        manifest: the dataset.
        user_table: the user's own prompts.
        mode: as in ``prompts_for``.

    Returns:
        One per class, in manifest order.

    Raises:
        ConfigError: ``mode`` is unknown.
    """
    return [
        prompts_for(
            manifest,
            Video(video_id=name, path=name, class_name=name, split=manifest.split_of(name)),
            user_table=user_table,
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
