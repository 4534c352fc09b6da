"""Manifest and videos of a CSV or JSON-lines table."""

import csv
import hashlib
import io
import json
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ManifestError
from pipeline.manifests.paths import check_inside, check_name, check_relative, check_text
from pipeline.manifests.scan import resolve_root
from pipeline.manifests.text import MAX_TABLE_BYTES, read_json_lines, read_text
from pipeline.manifests.types import SPLITS, Manifest, Video
from pipeline.nearest_names import did_you_mean

_REQUIRED = ("path", "class", "split")
_OPTIONAL = ("group", "id")


def manifest_from_table(table: Path, *, root: Path | None = None) -> tuple[Manifest, list[Video]]:
    """Manifest and videos of a CSV or JSON-lines table: path, class, split[, group][, id].

    Args:
        table: ``.jsonl``, ``.csv`` or ``.tsv``; other columns than these five are ignored.
        root: the folder that paths are relative to; None for the table's own folder.

    Returns:
        A manifest with the table's name, and its videos sorted by video_id.

    Raises:
        ManifestError: a column or value is missing, a path leaves the root, a class is in two
            splits, or a video occurs twice.
    """
    read = _json_rows if table.suffix.lower() in {".jsonl", ".json"} else _csv_rows
    rows = list(read(table))  # an absent table is named before an absent folder of its videos
    real_root = resolve_root(root or table.parent, needed="what the table names")
    videos: dict[str, Video] = {}
    splits: dict[str, str] = {}
    paths: set[str] = set()
    links = _Links(real_root)
    for where, row in rows:
        video = _video(where, row)
        if splits.setdefault(video.class_name, video.split) != video.split:
            raise ManifestError(
                f"{where} puts class {video.class_name!a} in {video.split}, an earlier line in "
                f"{splits[video.class_name]}; few-shot splits share no class; correct it"
            )
        if video.video_id in videos or video.path in paths:
            raise ManifestError(
                f"{where} repeats video {video.video_id!a}; one line each is needed; remove it"
            )
        links.check(video.path)
        videos[video.video_id] = video
        paths.add(video.path)
    if not videos:
        raise ManifestError(
            f"{table} lists no video; a header and a line per video are needed; add them"
        )
    ordered = sorted(videos.values(), key=lambda video: video.video_id)
    return _table_manifest(table, ordered, splits), ordered


def _table_manifest(table: Path, videos: list[Video], splits: Mapping[str, str]) -> Manifest:
    digest = hashlib.sha256()
    for video in videos:
        row = [video.video_id, video.class_name, video.split, video.group]
        digest.update(json.dumps(row).encode() + b"\n")
    counts = {split: sum(video.split == split for video in videos) for split in SPLITS}
    name = check_name(table.stem, what="table name")
    return Manifest(
        name=name,
        title=f"videos in {table.name}",
        classes={s: tuple(sorted(c for c in splits if splits[c] == s)) for s in SPLITS},
        num_videos=counts,
        folder=name,
        videos_sha256=digest.hexdigest(),
    )


def _csv_rows(table: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    text = io.StringIO(read_text(table, max_bytes=MAX_TABLE_BYTES), newline="")
    reader = csv.DictReader(text, delimiter="\t" if table.suffix == ".tsv" else ",", strict=True)
    try:
        _check_columns(table, reader.fieldnames or ())
        for row in reader:
            where = f"{table} line {reader.line_num}"
            if None in row:
                raise ManifestError(
                    f"{where} has more values than the header; quote commas in names"
                )
            yield where, row
    except csv.Error as fault:
        raise ManifestError(
            f"{table} line {reader.line_num} is no CSV ({fault}); correct it"
        ) from fault


def _json_rows(table: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for number, row in read_json_lines(table):
        where = f"{table} line {number}"
        _check_columns(where, row)
        yield where, row


def _check_columns(where: object, columns: Iterable[str]) -> None:
    present = list(columns)
    for name in (*_REQUIRED, *_OPTIONAL):
        if name in present:
            continue
        close = did_you_mean(name, [column for column in present if column not in _REQUIRED])
        # A misspelled `group` must not pass as "no groups": episodes would mix sources silently.
        if name in _REQUIRED or (name == "group" and close):
            raise ManifestError(
                f"{where} has no column {name!r}{close}; columns path, class, split and optionally "
                "group, id are needed; rename it"
            )


def _video(where: str, row: Mapping[str, Any]) -> Video:
    values = {}
    for name in (*_REQUIRED, *_OPTIONAL):
        value = row.get(name)
        if value is None:
            value = ""
        if not isinstance(value, str) or (not value and name in _REQUIRED):
            raise ManifestError(f"{where}: {name} is {value!a:.40}; text is needed; fill it in")
        values[name] = value
    path = check_relative(values["path"], what=f"{where}: path")
    if values["split"] not in SPLITS:
        hint = did_you_mean(values["split"], SPLITS)
        raise ManifestError(
            f"{where}: split {values['split']!a:.40}{hint} is none of train, val, test; correct it"
        )
    if values["group"]:
        check_text(values["group"], what=f"{where}: group")
    video_id = values["id"] or posixpath.splitext(path)[0]
    return Video(
        video_id=check_relative(video_id, what=f"{where}: id", max_bytes=255),
        path=path,
        class_name=check_name(values["class"], what=f"{where}: class"),
        split=values["split"],
        group=values["group"],
    )


class _Links:
    """Checks listed files for links that leave the root; resolves each folder once."""

    def __init__(self, real_root: Path) -> None:
        self._root = real_root
        self._checked: set[str] = set()

    def check(self, path: str) -> None:
        folder = posixpath.dirname(path)
        if folder not in self._checked and os.path.lexists(self._root / folder):
            check_inside(self._root, str(self._root / folder))
            self._checked.add(folder)
        full = os.path.join(self._root, path)
        # An absent file is the extraction's business: it costs one video, not the run.
        if os.path.lexists(full):
            check_inside(self._root, full, is_link=os.path.islink(full))
