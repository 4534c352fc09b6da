"""Published lists that choose among a class's videos: fetched, checked and normalised.

Three forms are in use: ``class/id`` (Xian et al. 2021, CMN), ``split<label>/id`` (HyRSM,
Something-Something) and ``split<label>//folder/class_folder/file.ext`` (HyRSM, Kinetics).
Each becomes ``class<TAB>video id``.
"""

import hashlib
import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ManifestError
from pipeline.manifests.fetch import RAW_BASE, fetch_list
from pipeline.manifests.library import load_manifest
from pipeline.manifests.paths import check_name
from pipeline.manifests.text import MAX_TABLE_BYTES, read_text
from pipeline.manifests.types import ListSource, Manifest, spelling

_LABELLED = re.compile(r"(?:train|val|test)(\d{1,4})/([^/]+)")
_LABELLED_PATH = re.compile(
    r"(?:train|val|test)\d{1,4}//(?:[^/]+/)*([^/]+)/([^/]+)\.(?:mp4|mkv|webm|avi)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImportedList:
    """A list that now lies beside the videos."""

    dataset: str
    edition: str
    split: str
    num_videos: int
    sha256: str
    """Of the list as published."""
    source: str
    """File or address that it came from."""
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "path": str(self.path)}


def import_list(
    name: str,
    split: str,
    source: Path | None,
    edition: str | None = None,
    *,
    destination: Path,
    base_url: str = RAW_BASE,
) -> ImportedList:
    """Read or download one published list, check it, and store it normalised below the videos root.

    Args:
        name: dataset, e.g. ``kinetics100``.
        split: train, val or test.
        source: the list as published; None to download it from its recorded source.
        edition: which edition of the list; None for the one that ``name`` says.
        destination: the videos root; the list goes to ``lists/<dataset>-<split>.tsv`` below it.
        base_url: where GitHub's raw files are served.

    Returns:
        What was stored, and where.

    Raises:
        ManifestError: the dataset has no such list, the list cannot be read or fetched, or its
            content differs from what was recorded, or it cannot be written; nothing is stored then.
    """
    manifest = load_manifest(name, edition=edition)
    record = _record(manifest, split)
    by_hand = _import_command(manifest, destination, f" --split {split} --from FILE")
    content, origin = fetch_list(record, source, by_hand=by_hand, base_url=base_url)
    rows = normalise_list(content.decode("utf-8", "replace").splitlines(), split, manifest)
    table = "".join(f"{class_name}\t{video_id}\n" for class_name, video_id in rows)
    path = list_path(manifest, split, destination)
    _write(path, table)
    return ImportedList(
        dataset=manifest.name,
        edition=manifest.edition,
        split=split,
        num_videos=len(rows),
        sha256=record.sha256,
        source=origin,
        path=path,
    )


def normalise_list(lines: list[str], split: str, manifest: Manifest) -> list[tuple[str, str]]:
    """Class and video id of each line of a published list, in its order.

    Args:
        lines: the list as published, in any of the three forms.
        split: the split that the list is for.
        manifest: tells class names, and the order that label numbers count in.

    Returns:
        Class name and video id, in the order of the list.

    Raises:
        ManifestError: a line has none of the forms, names an unknown class, or an id occurs twice.
    """
    by_spelling = {spelling(name): name for name in manifest.classes[split]}
    labels = manifest.labels.get(split, ())
    rows: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        class_name, video_id = _parse(line, by_spelling, labels)
        if not class_name:
            raise ManifestError(
                f"line {number} of the list, {line!a:.100}, names no {split} class of "
                f"{manifest.name}; a published list is needed; pass another file"
            )
        if video_id in rows:
            raise ManifestError(
                f"line {number} of the list repeats video {video_id!a:.100}; "
                "ids occur once; pass another file"
            )
        rows[check_name(video_id, what=f"video id in line {number}")] = class_name
    return [(class_name, video_id) for video_id, class_name in rows.items()]


def list_path(manifest: Manifest, split: str, root: Path) -> Path:
    """Where the normalised list of a split lies below the videos root."""
    return root / "lists" / f"{manifest.name}-{split}.tsv"


def read_imported(manifest: Manifest, root: Path) -> dict[str, tuple[str, str]]:
    """Video id -> (class name, split) of a dataset whose lists choose its videos.

    Args:
        manifest: such a dataset.
        root: the videos root.

    Returns:
        Video id -> class name and split.

    Raises:
        ManifestError: a list was not imported yet, or was changed since.
    """
    chosen = {}
    for split, record in manifest.sources.items():
        path = list_path(manifest, split, root)
        hint = f"run `{_import_command(manifest, root)}`"
        if not path.is_file():
            raise ManifestError(
                f"{path} is absent; {manifest.name} takes only the {record.lines} {split} videos "
                f"of a published list; {hint}"
            )
        text = read_text(path, max_bytes=MAX_TABLE_BYTES)
        if hashlib.sha256(text.encode()).hexdigest() != record.table_sha256:
            raise ManifestError(
                f"{path} was changed since its import; {hint} again, or pass a table of your own"
            )
        for line in text.splitlines():
            class_name, video_id = line.split("\t")
            chosen[video_id] = (class_name, split)
    return chosen


def _import_command(manifest: Manifest, root: Path, options: str = "") -> str:
    return f"i2st manifest import {manifest.name}{options} --videos {shlex.quote(str(root))}"


def _parse(line: str, by_spelling: Mapping[str, str], labels: tuple[str, ...]) -> tuple[str, str]:
    if match := _LABELLED_PATH.fullmatch(line):
        return by_spelling.get(spelling(match[1]), ""), match[2]
    if match := _LABELLED.fullmatch(line):
        label = int(match[1])
        return labels[label] if label < len(labels) else "", match[2]
    folder, _, video_id = line.partition("/")
    return by_spelling.get(spelling(folder), ""), video_id


def _record(manifest: Manifest, split: str) -> ListSource:
    if not manifest.edition:
        raise ManifestError(
            f"{manifest.name} takes all videos of its classes; it has no list to import; "
            "run `i2st extract`"
        )
    if split not in manifest.sources:
        raise ManifestError(
            f"{manifest.name} has no split {split!a:.40}; "
            f"known: {', '.join(manifest.sources)}; pass one of these"
        )
    return manifest.sources[split]


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as fault:
        with suppress(OSError):
            temporary.unlink()
        raise ManifestError(
            f"cannot write {path} ({fault.strerror}); a writable folder is needed; "
            "pass another with --videos"
        ) from fault
