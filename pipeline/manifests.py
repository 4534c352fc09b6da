"""Manifest: a dataset's classes, splits, videos and their source."""

from dataclasses import dataclass

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Video:
    """One video of a dataset."""

    video_id: str
    """Unique in the dataset; ``<class folder>/<clip>`` unless a list says otherwise. Printable, at most 255 bytes of UTF-8."""
    path: str
    """POSIX path below the videos root: a video file, or a folder of JPEG/PNG frames."""
    class_name: str
    """The manifest's name of the class, not the folder's alias."""
    split: str
    """train, val or test; a class lives in one split."""
    group: str = ""
    """Source the clip was cut from; empty where unknown, and then the video is its own group."""
