"""Episode files: the same test episodes for everyone, by video id, in less than 2 MB.

One file of `i2st_model.records.array_files`: support and query number the videos of a list of ids,
so 10,000 5-way 5-shot episodes of 1,292 videos take 0.7 MB. What a file says is checked in itself
when it is read, and against shards by `i2st_model.records.episode_checks`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from i2st_model.records.array_files import Arrays, load_arrays, refuse, save_arrays, smallest_type
from i2st_model.records.episode_sets import EpisodeSet

FORMAT = "i2st-episodes"
FORMAT_VERSION = 1
MIN_EPISODES = 2
MAX_SEED = (1 << 64) - 1
TEXTS = ("dataset", "digest", "split")
LISTS = ("class_names", "dropped_classes", "video_ids")
ARRAYS = ("query", "support", "video_class")


def save_episodes(path: Path, episodes: EpisodeSet) -> str:
    """Write an episode file, whole or not at all.

    Args:
        path: final place; its folder exists.
        episodes: what to keep.

    Returns:
        sha256 of the file; the same on every machine.

    Raises:
        ConfigError: the folder cannot be written.
        ResourceError: the disk is full or fails.
    """
    values = {"format": FORMAT, "format_version": FORMAT_VERSION, **episode_values(episodes)}
    return save_arrays(path, episode_arrays(episodes), values)


def load_episodes(path: Path) -> EpisodeSet:
    """Read an episode file and check it in itself.

    Args:
        path: of the file.

    Returns:
        The episodes.

    Raises:
        ConfigError: there is no such file.
        RecordError: it is no episode file, changed since it was written, or contradicts itself.
    """
    values, arrays, _ = load_arrays(path)
    require_format(path, values, FORMAT, FORMAT_VERSION)
    return episodes_of(path, values, arrays)


def episode_values(episodes: EpisodeSet) -> dict[str, Any]:
    """JSON values of a set of episodes."""
    values: dict[str, Any] = {name: getattr(episodes, name) for name in TEXTS}
    values.update({name: list(getattr(episodes, name)) for name in LISTS})
    return {**values, "seed": episodes.seed, "disjoint_groups": episodes.disjoint_groups}


def episode_arrays(episodes: EpisodeSet) -> Arrays:
    """Arrays of a set of episodes, each in the narrowest type."""
    videos = smallest_type(len(episodes.video_ids))
    return {
        "support": episodes.support.astype(videos),
        "query": episodes.query.astype(videos),
        "video_class": episodes.video_class.astype(smallest_type(len(episodes.class_names))),
    }


def episodes_of(path: Path, values: Mapping[str, Any], arrays: Arrays) -> EpisodeSet:
    """Check what a file says and build its episodes.

    Args:
        path: of the file, for messages.
        values: as `episode_values` gave them; others are left alone.
        arrays: as `episode_arrays` gave them; others are left alone.

    Returns:
        The episodes.

    Raises:
        RecordError: something is absent, of another type, or contradicts the rest.
    """
    for name, seen in _wrong(values, arrays).items():
        refuse(path, f"its {name} is {seen}")
    try:
        parts: dict[str, Any] = {name: values[name] for name in (*TEXTS, "seed", "disjoint_groups")}
        parts.update({name: tuple(values[name]) for name in LISTS})
        parts.update({name: arrays[name].astype(np.int64) for name in ARRAYS})
        found = EpisodeSet(**parts)
        if found.num_episodes < MIN_EPISODES:
            raise ValueError(f"it holds 1 episode, at least {MIN_EPISODES} have an interval")
        return found
    except ValueError as error:
        refuse(path, str(error))


def require_format(path: Path, values: Mapping[str, Any], name: str, version: int) -> None:
    """Refuse a file of another kind or version.

    Args:
        path: of the file, for the message.
        values: of the file.
        name: the format that is needed.
        version: its version.

    Raises:
        RecordError: it is another one.
    """
    found = values.get("format"), values.get("format_version")
    if found != (name, version):
        refuse(
            path, f"it has format {found[0]!r:.40} version {found[1]!r:.20}, not {name} {version}"
        )


def _wrong(values: Mapping[str, Any], arrays: Arrays) -> dict[str, str]:
    """Name -> what it is, of parts that are absent or of another type."""
    wrong: dict[str, str] = {}
    for name in TEXTS:
        if not isinstance(values.get(name), str):
            wrong[name] = f"{values.get(name)!r:.40}"
    for name in LISTS:
        kept = values.get(name)
        if not isinstance(kept, list) or not all(isinstance(one, str) for one in kept):
            wrong[name] = f"{kept!r:.40}"
    seed = values.get("seed")
    if type(seed) is not int or not 0 <= seed <= MAX_SEED:
        wrong["seed"] = f"{seed!r:.40}"
    if type(values.get("disjoint_groups")) is not bool:
        wrong["disjoint_groups"] = f"{values.get('disjoint_groups')!r:.40}"
    return wrong | {name: "absent" for name in ARRAYS if name not in arrays}
