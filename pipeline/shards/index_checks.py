"""What index.json has to be, so that nothing that reads shards need ask again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.shards.records import FeatureShape, ShardRecord, VideoRow
from pipeline.shards.sealed_json import malformed


def require_readable(document: Mapping[str, Any], path: Path) -> None:
    """Refuse values beside the tables that this version does not read.

    Args:
        document: content of index.json.
        path: of it, for messages.

    Raises:
        ShardError: one is malformed.
        KeyError: one is absent.
        TypeError: one is of another kind.
    """
    dataset, fingerprint = document["dataset"], document["fingerprint"]
    if not isinstance(dataset["name"], str) or not isinstance(fingerprint, dict):
        raise malformed(path, "dataset")
    _require_contents(fingerprint, path)
    classes = dataset["classes"]
    if not isinstance(classes, dict) or not all(map(_are_strings, classes.values())):
        raise malformed(path, "classes")
    if not all(type(size) is int and size >= 0 for size in FeatureShape(**document["shape"])):
        raise malformed(path, "shape")


def _require_contents(fingerprint: Mapping[str, Any], path: Path) -> None:
    """What the rows hold must be something that this version reads."""
    for key in ("view", "segmenter", "prompts"):
        if not isinstance(fingerprint.get(key) or {}, dict):
            raise malformed(path, key)
    views = fingerprint.get("views", [])
    if not _are_strings(views):
        raise malformed(path, "views")
    if len(set(views)) != len(views):
        raise malformed(path, "views, which must differ")
    if "store" in fingerprint and (fingerprint["store"]["kind"] != "frames" or views):
        raise malformed(path, "store, which must be frames, without views")


def _are_strings(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def require_consistent(
    classes: Mapping[str, Sequence[str]],
    shards: Sequence[ShardRecord],
    videos: Sequence[VideoRow],
    path: Path,
) -> None:
    """Refuse videos without one place in one listed shard each, or without a class of their split.

    Args:
        classes: split -> class names.
        shards: all that are listed.
        videos: all that are listed.
        path: of index.json, for messages.

    Raises:
        ShardError: the tables contradict each other.
    """
    ids = [video.video_id for video in videos]
    if any(first >= second for first, second in zip(ids, ids[1:], strict=False)):
        raise malformed(path, "videos, which must be sorted and unique")
    places = sorted((video.shard, video.row) for video in videos)
    # The sum comes first: a forged count would make a list without end.
    complete = sum(shard.num_videos for shard in shards) == len(places)
    if not complete or places != [
        (shard.number, row) for shard in sorted(shards) for row in range(shard.num_videos)
    ]:
        raise malformed(path, "videos, whose places differ from the shards'")
    allowed = {(split, name) for split, names in classes.items() for name in names}
    if not {(video.split, video.class_name) for video in videos} <= allowed:
        raise malformed(path, "videos, with a class that is not of its split")
    slots = {shard.number: shard.num_slots for shard in shards}
    most = max(slots.values(), default=0)
    of_train = {slots[video.shard] for video in videos if video.split == "train"}
    if not set(slots.values()) <= {0, most} or len(of_train | {most}) > 1:
        raise malformed(path, "shards, whose mask slots differ")
