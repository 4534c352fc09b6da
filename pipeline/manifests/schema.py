"""YAML -> Manifest: every key known, every type right, every class in one split."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ManifestError
from pipeline.manifests.paths import check_name, check_relative
from pipeline.manifests.text import read_yaml
from pipeline.manifests.types import SPLITS, ClassPrompts, ListSource, Manifest
from pipeline.manifests.values import count, counts, mapping, name_list, text_value
from pipeline.nearest_names import did_you_mean

_TEXTS = (
    "name",
    "title",
    "folder",
    "homepage",
    "licence",
    "layout",
    "truth_masks",
    "group_pattern",
)
_KEYS = {
    *_TEXTS,
    "subfolders",
    "aliases",
    "match_by_group",
    "actor",
    "num_videos",
    "classes",
    "lists",
}
_CLASS_KEYS = {"videos", "label", "actor", "objects"}
_SOURCE_TEXTS = ("repository", "commit", "path", "licence", "sha256", "table_sha256")
MAX_NOUNS = 3


def read_manifest(path: Path) -> Manifest:
    """Manifest written in a YAML file.

    Args:
        path: a file in the form of those in ``data_manifests``.

    Returns:
        The manifest, its first edition chosen.

    Raises:
        ManifestError: the file breaks the form, or a class occurs twice.
    """
    raw = mapping(read_yaml(path), f"{path}", _KEYS)
    texts = {key: text_value(raw[key], f"{path}: {key}") for key in _TEXTS if key in raw}
    if "name" not in texts or "classes" not in raw:
        raise ManifestError(f"{path} lacks name or classes; both are needed; add them")
    for key in ("name", "folder"):
        check_name(texts.get(key, texts["name"]), what=f"{path}: {key}")
    classes = _classes(raw["classes"], path)
    lists = _lists(raw.get("lists", {}), f"{path}: lists")
    return Manifest(
        **{"title": texts["name"], "folder": texts["name"], **texts},
        classes={split: tuple(sorted(entries)) for split, entries in classes.items()},
        num_videos=counts(raw.get("num_videos"), f"{path}: num_videos"),
        class_videos=_column(classes, "videos"),
        subfolders=name_list(raw.get("subfolders", []), f"{path}: subfolders"),
        aliases=_aliases(raw.get("aliases", {}), classes, f"{path}: aliases"),
        match_by_group=raw.get("match_by_group", False) is True,
        edition=next(iter(lists), ""),
        lists=lists,
        labels=_labels(classes, path),
        actor=nouns(raw.get("actor", ["person"]), f"{path}: actor"),
        prompts=_prompts(classes, path),
    )


def class_prompts(raw: Any, what: str) -> ClassPrompts:
    """Prompts of one class: a list of objects, or ``{actor: [...], objects: [...]}``.

    Args:
        raw: the value in the file.
        what: where it stands, for the error message.

    Returns:
        Actor and objects, None where the entry says nothing.

    Raises:
        ManifestError: it is neither.
    """
    if isinstance(raw, list):
        return ClassPrompts(objects=nouns(raw, what))
    entry = mapping(raw, what, _CLASS_KEYS)
    return ClassPrompts(
        actor=nouns(entry["actor"], f"{what}: actor") if "actor" in entry else None,
        objects=nouns(entry["objects"], f"{what}: objects") if "objects" in entry else None,
    )


def nouns(raw: Any, what: str) -> tuple[str, ...]:
    """At most three short printable nouns.

    Args:
        raw: the value in the file.
        what: where it stands, for the error message.

    Returns:
        The nouns, in their order.

    Raises:
        ManifestError: it is something else.
    """
    names = name_list(raw, what)
    if len(names) > MAX_NOUNS:
        raise ManifestError(f"{what} has {len(names)} nouns; at most {MAX_NOUNS} fit; drop some")
    return names


def _classes(raw: Any, path: Path) -> dict[str, dict[str, Any]]:
    splits = mapping(raw, f"{path}: classes", set(SPLITS))
    seen: dict[str, str] = {}
    for split, entries in splits.items():
        for name, entry in mapping(entries, f"{path}: classes {split}", None).items():
            check_name(name, what=f"{path}: class name")
            if name in seen:
                raise ManifestError(
                    f"{path}: class {name!a} is in {seen[name]} and {split}; "
                    "a class lives in one split; remove one"
                )
            seen[name] = split
            if isinstance(entry, dict):
                mapping(entry, f"{path}: class {name!a}", _CLASS_KEYS)
    if not seen:
        raise ManifestError(f"{path} names no class; at least one is needed; add it")
    return {split: splits.get(split) or {} for split in SPLITS}


def _column(classes: Mapping[str, Mapping[str, Any]], key: str) -> dict[str, int]:
    return {
        name: count(entry[key], f"class {name!a}: {key}")
        for entries in classes.values()
        for name, entry in entries.items()
        if isinstance(entry, dict) and key in entry
    }


def _prompts(classes: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, ClassPrompts]:
    return {
        name: class_prompts(entry, f"{path}: class {name!a}")
        for entries in classes.values()
        for name, entry in entries.items()
        if entry is not None
    }


def _labels(classes: Mapping[str, Mapping[str, Any]], path: Path) -> dict[str, tuple[str, ...]]:
    numbers = _column(classes, "label")
    labels = {}
    for split, entries in classes.items():
        ordered = sorted((name for name in entries if name in numbers), key=numbers.__getitem__)
        if ordered and [numbers[name] for name in ordered] != list(range(len(entries))):
            raise ManifestError(
                f"{path}: labels of {split} are not 0 to {len(entries) - 1}; "
                "each once is needed; correct them"
            )
        if ordered:
            labels[split] = tuple(ordered)
    return labels


def _aliases(raw: Any, classes: Mapping[str, Any], what: str) -> dict[str, str]:
    known = [name for entries in classes.values() for name in entries]
    aliases = {folder: text_value(name, what) for folder, name in mapping(raw, what, None).items()}
    for name in aliases.values():
        if name not in known:
            raise ManifestError(
                f"{what} name the unknown class {name!a}{did_you_mean(name, known)}; correct it"
            )
    return aliases


def _lists(raw: Any, what: str) -> dict[str, dict[str, ListSource]]:
    editions = {}
    for edition, splits in mapping(raw, what, None).items():
        check_name(edition, what=f"{what}: edition")
        where = f"{what} {edition}"
        sources = mapping(splits, where, set(SPLITS))
        editions[edition] = {
            split: _source(source, f"{where} {split}") for split, source in sources.items()
        }
    return editions


def _source(raw: Any, what: str) -> ListSource:
    entry = mapping(raw, what, {*_SOURCE_TEXTS, "lines"})
    missing = sorted({*_SOURCE_TEXTS, "lines"} - set(entry))
    if missing:
        raise ManifestError(f"{what} lacks {', '.join(missing)}; all are needed; add them")
    texts = {key: text_value(entry[key], f"{what}: {key}") for key in _SOURCE_TEXTS}
    check_relative(texts["path"], what=f"{what}: path")
    for key in ("sha256", "table_sha256"):
        if not re.fullmatch("[0-9a-f]{64}", texts[key]):
            raise ManifestError(f"{what}: {key} is no sha256; 64 hex digits are needed; correct it")
    return ListSource(**texts, lines=count(entry["lines"], f"{what}: lines"))
