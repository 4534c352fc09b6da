"""What is on disk against what a dataset needs, before any hour is spent; what ships with i2st."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.manifests.library import known_manifests, load_manifest
from pipeline.manifests.lists import read_imported
from pipeline.manifests.scan import resolve_root, scan_folders
from pipeline.manifests.types import SPLITS, Manifest, Video
from pipeline.manifests.videos import class_of_folder, find_videos


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCheck:
    """One class on disk."""

    class_name: str
    split: str
    num_present: int
    num_expected: int | None
    """None where the manifest does not say."""

    @property
    def num_missing(self) -> int:
        """Videos that the complete dataset has and the disk has not."""
        return max(0, (self.num_expected or 0) - self.num_present)

    @property
    def num_extra(self) -> int:
        """Videos on disk beyond the complete dataset."""
        return 0 if self.num_expected is None else max(0, self.num_present - self.num_expected)


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitCheck:
    """One split on disk."""

    split: str
    num_classes: int
    num_present: int
    num_expected: int | None
    missing_classes: tuple[str, ...]
    """Classes without a single video."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckReport:
    """A videos root against its manifest."""

    dataset: str
    root: str
    splits: tuple[SplitCheck, ...]
    classes: tuple[ClassCheck, ...]
    extra_folders: tuple[str, ...]
    """Folders below the root that are no class of the dataset."""
    missing_videos: tuple[str, ...] = ()
    """Listed ids that are not on disk, where a list chooses the videos."""

    @property
    def num_present(self) -> int:
        """Videos that an extraction would read."""
        return sum(split.num_present for split in self.splits)

    @property
    def complete(self) -> bool:
        """Whether every class and every expected or listed video is there."""
        lacking = (
            *(split.missing_classes for split in self.splits),
            *(check.num_missing for check in self.classes),
            *(split.num_present < (split.num_expected or 0) for split in self.splits),
            self.missing_videos,
        )
        return not any(lacking)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for ``--json``."""
        classes = [
            {**asdict(check), "num_missing": check.num_missing, "num_extra": check.num_extra}
            for check in self.classes
        ]
        return {
            **asdict(self),
            "classes": classes,
            "complete": self.complete,
            "num_present": self.num_present,
        }


def check_videos(
    manifest: Manifest, root: Path, videos: Sequence[Video] | None = None
) -> CheckReport:
    """Count what lies below ``root`` per class and split, and name what is missing or extra.

    Args:
        manifest: the dataset.
        root: the videos root.
        videos: the videos of a table; None to look for the manifest's.

    Returns:
        Counts per class and split, and what is missing or extra.

    Raises:
        ManifestError: as ``find_videos``.
    """
    real_root = resolve_root(root, needed=manifest.layout)
    if videos is None:
        wanted = set(read_imported(manifest, root)) if manifest.edition else set()
        present = find_videos(manifest, root)
    else:
        wanted = {video.video_id for video in videos}
        present = [video for video in videos if (real_root / video.path).exists()]
    expected = _expected(manifest, videos)
    counts = Counter(video.class_name for video in present)
    return CheckReport(
        dataset=manifest.name,
        root=str(root),
        splits=tuple(_check_split(manifest, split, counts) for split in SPLITS),
        classes=tuple(
            ClassCheck(
                class_name=name,
                split=split,
                num_present=counts[name],
                num_expected=expected.get(name),
            )
            for split in SPLITS
            for name in manifest.classes.get(split, ())
        ),
        extra_folders=_extra_folders(manifest, real_root) if videos is None else (),
        missing_videos=tuple(sorted(wanted - {video.video_id for video in present})),
    )


def manifest_summaries() -> list[dict[str, Any]]:
    """One record per dataset that ships with i2st, for ``i2st manifest list``."""
    return [_summary(load_manifest(name)) for name in known_manifests()]


def describe_manifest(manifest: Manifest) -> dict[str, Any]:
    """JSON values of all that a manifest says, for ``i2st manifest show``."""
    return {
        **_summary(manifest),
        "classes": {split: list(manifest.classes.get(split, ())) for split in SPLITS},
        "class_videos": dict(manifest.class_videos),
        "layout": manifest.layout,
        "subfolders": list(manifest.subfolders),
        "truth_masks": manifest.truth_masks,
        "aliases": dict(manifest.aliases),
        "group_pattern": manifest.group_pattern,
        "lists": {
            split: {**asdict(source), "url": source.url()}
            for split, source in manifest.sources.items()
        },
        "actor": list(manifest.actor),
        "prompts": {name: asdict(prompts) for name, prompts in manifest.prompts.items()},
    }


def _summary(manifest: Manifest) -> dict[str, Any]:
    return {
        "name": manifest.name,
        "title": manifest.title,
        "edition": manifest.edition,
        "num_classes": {split: len(manifest.classes.get(split, ())) for split in SPLITS},
        "num_videos": None if manifest.num_videos is None else dict(manifest.num_videos),
        "needs_import": bool(manifest.edition),
        "licence": manifest.licence,
        "homepage": manifest.homepage,
        "folder": manifest.folder,
        "sha256": manifest.sha256,
    }


def _check_split(manifest: Manifest, split: str, counts: Counter[str]) -> SplitCheck:
    names = manifest.classes.get(split, ())
    return SplitCheck(
        split=split,
        num_classes=len(names),
        num_present=sum(counts[name] for name in names),
        num_expected=None if manifest.num_videos is None else manifest.num_videos.get(split),
        missing_classes=tuple(name for name in names if not counts[name]),
    )


def _expected(manifest: Manifest, videos: Sequence[Video] | None) -> dict[str, int]:
    if videos is not None:
        return dict(Counter(video.class_name for video in videos))
    return dict(manifest.class_videos)


def _extra_folders(manifest: Manifest, real_root: Path) -> tuple[str, ...]:
    if "<class>" not in manifest.layout:
        return ()
    find = class_of_folder(manifest)
    known = {*manifest.subfolders, "lists", "labels", manifest.truth_masks.split("/")[0]}
    folders = (name for name, _ in scan_folders(real_root))
    return tuple(name for name in folders if name not in known and find(name) is None)
