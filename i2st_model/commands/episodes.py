"""`i2st episodes`: make, show and verify files of test episodes."""

import hashlib
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.lists import new_file
from i2st_model.commands.method_opening import SHARDS
from i2st_model.commands.opening import open_videos
from i2st_model.commands.options import (
    DisjointGroups,
    DropSmallClasses,
    Episodes,
    OtherFeatures,
    Queries,
    Seed,
    Shards,
    Shot,
    Split,
    Way,
)
from pipeline.commands.console import EXIT_REFUSED, note, say, show_json, show_result, show_table
from pipeline.commands.options import Json

EpisodeFile = Annotated[Path, typer.Argument(metavar="FILE", help="Of `i2st episodes make`.")]


def episodes_make(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")],
    shards: Shards = None,
    split: Split = "test",
    way: Way = 5,
    shot: Shot = 1,
    queries: Queries = 1,
    episodes: Episodes = 10_000,
    seed: Seed = 0,
    disjoint_groups: DisjointGroups = False,
    drop_small_classes: DropSmallClasses = False,
    as_json: Json = False,
) -> None:
    """Draw episodes and keep them by video id. `i2st evaluate` would draw the same."""
    from i2st_model.evaluating.config import EvaluateConfig
    from i2st_model.evaluating.episode_draws import draw_episodes
    from i2st_model.records.episode_files import save_episodes

    new_file(out, "FILE")
    config = EvaluateConfig(
        split=split,
        way=way,
        shot=shot,
        queries=queries,
        episodes=episodes,
        seed=seed,
        disjoint_groups=disjoint_groups,
        drop_small_classes=drop_small_classes,
    )
    drawn = draw_episodes(_open(shards), config)
    sha256 = save_episodes(out, drawn)
    show_result({"file": str(out), **_facts(drawn), **_bytes_of(out, sha256)}, as_json)


def episodes_show(
    file: EpisodeFile,
    number: Annotated[
        int | None, typer.Option(min=0, metavar="<int>", help="Show the clips of this episode.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what an episode file holds; reads no shards."""
    from i2st_model.records.episode_files import load_episodes
    from pipeline.errors import ConfigError

    kept = load_episodes(file)
    if number is None:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        show_result({"file": str(file), **_facts(kept), **_bytes_of(file, sha256)}, as_json)
        return
    if number >= kept.num_episodes:
        raise ConfigError(
            f"--number {number}, {file} holds {kept.num_episodes} episodes; 0 to "
            f"{kept.num_episodes - 1} is needed; lower it"
        )
    rows = _clips_of(kept, number)
    titles = ("class", "use", "video")
    if as_json:
        show_json({"number": number, "clips": [dict(zip(titles, r, strict=True)) for r in rows]})
    else:
        show_table(rows, titles)


def episodes_verify(
    file: EpisodeFile,
    shards: Shards = None,
    other_features: OtherFeatures = False,
    as_json: Json = False,
) -> None:
    """Compare an episode file with shards.

    Videos, classes, split, sources and digest must be the same; exits with 0 or 4.
    """
    from i2st_model.records.episode_checks import differences
    from i2st_model.records.episode_files import load_episodes

    kept = load_episodes(file)
    store = _open(shards)
    found = differences(kept, store)
    if other_features and kept.digest != store.index.digest:
        note(f"accepted: {found.pop()}")
    if as_json:
        show_json({"file": str(file), "shards": str(store.reader.folder), "differences": found})
    else:
        for clause in found:
            say(f"differs: {clause}")
        if not found:
            say(f"{file} fits {store.reader.folder}: {kept.num_episodes} episodes")
    if found:
        raise typer.Exit(EXIT_REFUSED)


def _clips_of(kept: Any, number: int) -> list[tuple[str, str, str]]:
    """Class, use and id of every clip of an episode."""
    named = [kept.class_names[place] for place in kept.classes[number].tolist()]
    return [
        (name, use, kept.video_ids[video])
        for way, name in enumerate(named)
        for use, videos in (("support", kept.support), ("query", kept.query))
        for video in videos[number, way].tolist()
    ]


def _open(shards: Path | None) -> Any:
    from i2st_model.runs import find_newest_shards

    return open_videos(shards or find_newest_shards(SHARDS))


def _facts(kept: Any) -> dict[str, Any]:
    return {
        "dataset": kept.dataset,
        "split": kept.split,
        "way": kept.way,
        "shot": kept.shot,
        "queries": kept.queries,
        "episodes": kept.num_episodes,
        "seed": kept.seed,
        "disjoint_groups": kept.disjoint_groups,
        "classes": len(kept.class_names),
        "videos": len(kept.video_ids),
        "dropped_classes": ", ".join(kept.dropped_classes) or None,
        "digest": kept.digest,
    }


def _bytes_of(file: Path, sha256: str) -> dict[str, Any]:
    return {"size_bytes": file.stat().st_size, "sha256": sha256}
