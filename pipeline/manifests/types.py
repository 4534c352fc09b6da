"""What a manifest is: classes, splits, sizes and sources of one dataset, and one video of it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """One video of a dataset."""

    video_id: str
    """Unique in the dataset: ``<class name>/<clip>``, or a list's id; at most 255 bytes."""
    path: str
    """POSIX path below the videos root: a video file, or a folder of JPEG/PNG frames."""
    class_name: str
    """The manifest's name of the class, not the folder's alias."""
    split: str
    """train, val or test; a class lives in one split."""
    group: str = ""
    """Source the clip was cut from; empty where unknown, and then the video is its own group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListSource:
    """Where a published list of videos lies, and what it must hold."""

    repository: str
    """owner/name on GitHub."""
    commit: str
    path: str
    licence: str
    lines: int
    sha256: str
    """Of the list as published."""
    table_sha256: str
    """Of the list as ``i2st manifest import`` writes it: ``class<TAB>video id`` per line."""

    def url(self, base: str = "https://raw.githubusercontent.com") -> str:
        """Address of the published file."""
        return f"{base}/{self.repository}/{self.commit}/{self.path}"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassPrompts:
    """What a table says about one class or one video; None where it says nothing."""

    actor: tuple[str, ...] | None = None
    objects: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A dataset's classes, splits, videos and their source."""

    name: str
    title: str
    classes: Mapping[str, tuple[str, ...]]
    """Split -> class names, sorted; a class lives in one split."""
    num_videos: Mapping[str, int] | None = None
    """Split -> number of videos of the complete dataset; None where unknown."""
    class_videos: Mapping[str, int] = field(default_factory=dict)
    """Class name -> number of videos of the complete dataset, where known."""
    licence: str = ""
    homepage: str = ""
    layout: str = "<class>/<clip>.<ext>"
    """How the videos lie below the root; flat where it does not say ``<class>``."""
    folder: str = ""
    """Name below the data root; the same for all editions of a dataset."""
    subfolders: tuple[str, ...] = ()
    """Folders below the root that the dataset's own archives put in between."""
    truth_masks: str = ""
    """Where the dataset's own masks lie, if it has any; optional."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Folder name -> class name, beyond what ``spelling`` forgives."""
    group_pattern: str | None = None
    """Regular expression on a clip's name, with a group ``group``; ``{class}`` is the class."""
    match_by_group: bool = False
    """Whether a listed id may be found under another file name of the same group."""
    edition: str = ""
    """Which of ``lists`` chooses the videos; empty where all videos of a class belong."""
    lists: Mapping[str, Mapping[str, ListSource]] = field(default_factory=dict)
    """Edition -> split -> source, for datasets that choose among a class's videos."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Split -> class names in the order of the numbers that published lists use."""
    actor: tuple[str, ...] = ("person",)
    """Who acts, where a class does not say otherwise."""
    prompts: Mapping[str, ClassPrompts] = field(default_factory=dict)
    """Class name -> curated prompts."""
    videos_sha256: str = ""
    """Hash of the table of videos, for manifests made from one."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """All classes: train, then val, then test."""
        return tuple(name for split in SPLITS for name in self.classes.get(split, ()))

    @property
    def sources(self) -> Mapping[str, ListSource]:
        """Split -> list of the chosen edition; empty where all videos of a class belong."""
        return self.lists[self.edition] if self.edition else {}

    @property
    def sha256(self) -> str:
        """Hash of what decides the data: name, classes per split, and the choice of videos."""
        choice = {split: source.sha256 for split, source in self.sources.items()}
        decides = {
            "name": self.name,
            "classes": {split: list(self.classes.get(split, ())) for split in SPLITS},
            "videos": self.videos_sha256 or choice,
        }
        canonical = json.dumps(decides, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def split_of(self, class_name: str) -> str:
        """Split that a class lives in.

        Args:
            class_name: one of ``class_names``.

        Returns:
            train, val or test.

        Raises:
            KeyError: the manifest has no such class.
        """
        for split in SPLITS:
            if class_name in self.classes.get(split, ()):
                return split
        raise KeyError(class_name)

    def group_of(self, clip: str, class_name: str) -> str:
        """Source that a clip was cut from, read off its name; empty where the name does not say."""
        if self.group_pattern is None:
            return ""
        match = re.fullmatch(self.group_pattern.replace("{class}", re.escape(class_name)), clip)
        return match["group"] if match else ""


def spelling(name: str) -> str:
    """Letters and digits of a name, case folded: what ``Hand_Stand`` and ``hand stand`` share."""
    return "".join(letter for letter in name.casefold() if letter.isalnum())
