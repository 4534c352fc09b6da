"""`i2st info` and `i2st verify`: what a folder of shards holds, and whether it is sound."""

import json
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.console import EXIT_REFUSED, failure_line, say, show_json, show_result
from pipeline.commands.options import Json


def info(
    path: Annotated[Path, typer.Argument(help="Folder of shards.")],
    as_json: Json = False,
) -> None:
    """What a folder of shards holds: videos, failures, digest.

    The fingerprint is all that decided the features.
    """
    from pipeline.shards.index import ShardIndex

    index = ShardIndex.load(path)
    has_features = index.stores == "features"
    train = [row for row, video in enumerate(index.videos) if video.split == "train"]
    values = {
        "dataset": index.dataset_name,
        "stores": index.stores,
        "format_version": index.format_version,
        "digest": index.digest,
        "videos": len(index.videos),
        "failures": [failure._asdict() for failure in index.failures],
        "classes": {split: len(names) for split, names in index.classes.items()},
        "classes_present": {split: len(names) for split, names in index.classes_present.items()},
        "frames": index.num_frames,
        "tokens": [index.num_tokens, index.token_dim] if has_features else None,
        "embedding": index.embedding_dim if has_features else None,
        "views": list(index.view_names),
        "masks": index.has_masks,
        "train_videos": len(train),
        "train_videos_with_masks": _num_masked(path, train) if index.has_masks else None,
        "shards": len(index.shards),
        "size_bytes": sum(shard.size_bytes for shard in index.shards),
        "fingerprint": index.fingerprint,
    }
    if as_json:
        show_json(values)
        return
    present = index.classes_present
    values["failures"] = len(index.failures)
    values["classes"] = ", ".join(
        f"{split} {len(present[split])} of {len(names)}" for split, names in index.classes.items()
    )
    values["frames"] = f"{index.num_frames} per video"
    values["tokens"] = f"{index.num_tokens} x {index.token_dim} per frame"
    values["embedding"] = f"{index.embedding_dim} per frame"
    values["views"] = ", ".join(index.view_names) or None
    masked = values["train_videos_with_masks"]
    if masked is not None:
        values["masks"] = f"{masked} of {len(train)} train videos"
    of_features = () if has_features else ("tokens", "embedding", "views")
    of_masks = ("train_videos", "train_videos_with_masks")
    for key in ("classes_present", "fingerprint", *of_masks, *of_features):
        del values[key]
    show_result(values, as_json=False)
    typer.echo(f"fingerprint {json.dumps(index.fingerprint, indent=2)}")
    for failure in index.failures:
        say(failure_line(failure))


def _num_masked(path: Path, train: list[int]) -> int | None:
    """Train videos in which a mask was found; None where shards are absent or damaged."""
    from pipeline.errors import ShardError
    from pipeline.shards.reader import ShardReader

    try:
        # Without their checksums, which would read all features.
        return int(ShardReader(path, verify=False).with_masks(train).sum())
    except ShardError:
        return None


def verify(
    path: Annotated[Path, typer.Argument(help="Folder of shards.")],
    as_json: Json = False,
) -> None:
    """Read shards again and compare them with their checksums. Exits with 0 or 4."""
    from pipeline.shards.verify import verify as check

    problems = check(path)
    if as_json:
        show_json({"path": str(path), "problems": problems})
    else:
        for problem in problems:
            say(problem)
        typer.echo(
            f"{path}: {f'problems: {len(problems)}' if problems else 'every checksum holds'}"
        )
    if problems:
        raise typer.Exit(EXIT_REFUSED)
