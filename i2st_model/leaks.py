"""Whether training saw what is evaluated: classes by name, videos by id, across datasets too.

Published splits overlap: 568 of SSv2-Small's test videos are in SSv2-Full's train split, and nine
of SSv2-Full's test classes are in SSv2-Small's. Classes are compared by `spelling`. Videos are
compared by the name of the clip, since another dataset files it under another class; a name that
tells nothing, such as class/0001, counts with its folder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from i2st_model.checkpoints import Checkpoint, CheckpointInfo
from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.records.episode_sets import EpisodeSet
from pipeline.errors import ConfigError
from pipeline.manifests import spelling

TELLING_LETTERS = 8
"""A clip's name with fewer letters and digits, or without a letter, is its place in a folder."""
TELLING_SHARE = 0.9
"""Where fewer of the clips' names differ, clips are numbered class by class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What of an evaluation training saw."""

    classes: tuple[str, ...] = ()
    """Names, as the evaluated dataset spells them."""
    videos: tuple[str, ...] = ()
    """Ids in the evaluated dataset."""

    def __bool__(self) -> bool:
        return bool(self.classes or self.videos)

    def __or__(self, other: "Seen") -> "Seen":
        return Seen(
            classes=tuple(dict.fromkeys((*self.classes, *other.classes))),
            videos=tuple(dict.fromkeys((*self.videos, *other.videos))),
        )

    def counted(self) -> str:
        """How much it is, in words, with the first of each."""
        parts = []
        for names, one, many in (
            (self.classes, "class", "classes"),
            (self.videos, "video", "videos"),
        ):
            if names:
                what = one if len(names) == 1 else many
                parts.append(f"{len(names)} {what} ({first_of(names)})")
        return ", ".join(parts)


NOTHING_SEEN = Seen()


def video_hashes(video_ids: Sequence[str]) -> NDArray[np.int64]:
    """Hash the videos of a training run, to be kept in its checkpoint.

    Args:
        video_ids: (V,) ids of all train videos.

    Returns:
        (V,) int64. 64-bit BLAKE2 of what identifies each clip.
    """
    names = [_clip_name(video_id) for video_id in video_ids]
    telling = len(set(names)) >= TELLING_SHARE * len(names)
    kept = names if telling else [_whole_name(video_id) for video_id in video_ids]
    return hashed(kept)


def hashed(texts: Sequence[str]) -> NDArray[np.int64]:
    """Hash texts as checkpoints keep them: (n,) int64, 64-bit BLAKE2 of each."""
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def find_seen(
    train_classes: Sequence[str],
    train_videos: NDArray[np.int64],
    class_names: Sequence[str],
    video_ids: Sequence[str],
) -> Seen:
    """Find what of an evaluation training saw.

    Args:
        train_classes: names that training saw.
        train_videos: `video_hashes` of the train videos; empty where a run did not keep them.
        class_names: to be evaluated.
        video_ids: to be evaluated.

    Returns:
        The classes and videos that training saw, in the order given.
    """
    spelled = {spelling(name) for name in train_classes}
    known = np.asarray(train_videos, dtype=np.int64)
    by_name = np.isin(hashed([_clip_name(video_id) for video_id in video_ids]), known)
    by_place = np.isin(hashed([_whole_name(video_id) for video_id in video_ids]), known)
    return Seen(
        classes=tuple(name for name in class_names if spelling(name) in spelled),
        videos=tuple(video_ids[place] for place in np.flatnonzero(by_name | by_place).tolist()),
    )


def seen_by_run(info: CheckpointInfo, class_names: Sequence[str], video_ids: Sequence[str]) -> Seen:
    """Find what of an evaluation the training run of a checkpoint saw; see `find_seen`."""
    hashes = np.array(info.train_video_hashes, dtype=np.int64)
    return find_seen(info.train_classes, hashes, class_names, video_ids)


DRAWN = "choose another split or run, or leave them out with --drop-seen"
REPLAYED = "choose another run, or draw episodes without them: --drop-seen in place of the file"
"""What to do about a refusal, where episodes are drawn and where they come from a file."""


def require_unseen(checkpoint: Checkpoint, episodes: EpisodeSet, *, remedy: str = DRAWN) -> None:
    """Refuse an evaluation of what training saw.

    Args:
        checkpoint: of the training run.
        episodes: to be evaluated; every class and video that they are drawn from counts.
        remedy: what to do about it.

    Raises:
        ConfigError: says how many classes and videos, and names the first.
    """
    names, ids = episodes.class_names, episodes.video_ids
    seen = seen_by_run(checkpoint.info, names, ids)
    if not seen:
        return
    classes = f"{len(seen.classes)} of {len(names)} evaluated classes"
    videos = f"{len(seen.videos)} of {len(ids)} evaluated videos"
    what, first = (classes, seen.classes) if seen.classes else (videos, seen.videos)
    also = (
        f", and {videos} ({first_of(seen.videos, most=1)})" if seen.classes and seen.videos else ""
    )
    raise ConfigError(
        f"{what} were trained on by {checkpoint.path.parent}: {first_of(first)}{also}; few-shot "
        f"accuracy needs unseen classes and videos; {remedy}"
    )


def first_of(names: Sequence[str], most: int = 5) -> str:
    """Names in words: the first of them, and how many more there are."""
    some = ", ".join(repr(name) for name in names[:most])
    return f"{some} and {len(names) - most} more" if len(names) > most else some


def without_seen(
    videos: Sequence[ClassVideos], seen: Seen, video_ids: Sequence[str]
) -> list[ClassVideos]:
    """Leave out what training saw.

    Args:
        videos: the classes to draw from.
        seen: classes and videos to leave out.
        video_ids: ids by row.

    Returns:
        The other classes, with the other videos; a class may be left with none.
    """
    classes, ids = set(seen.classes), set(seen.videos)
    return [_without(one, ids, video_ids) for one in videos if one.name not in classes]


def _without(videos: ClassVideos, ids: set[str], video_ids: Sequence[str]) -> ClassVideos:
    kept = [place for place, row in enumerate(videos.rows) if video_ids[row] not in ids]
    if len(kept) == len(videos.rows):
        return videos
    return replace(
        videos,
        rows=[videos.rows[place] for place in kept],
        groups=[videos.groups[place] for place in kept],
    )


def _clip_name(video_id: str) -> str:
    """Name of the clip alone where it tells clips apart, else with its folders."""
    folder, _, clip = video_id.rpartition("/")
    name = spelling(clip)
    telling = len(name) >= TELLING_LETTERS and not name.isdigit()
    return name if telling or not folder else _whole_name(video_id)


def _whole_name(video_id: str) -> str:
    return "/".join(spelling(part) for part in video_id.split("/"))
