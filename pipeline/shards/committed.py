"""What a folder of shards holds already, and the last step that makes it a dataset.

While an extraction runs, a shard is committed by its sidecar, shard-00000.json. At the end
index.json takes over what the sidecars say and they are removed. A crash anywhere in between leaves
both, which say the same.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import ShardError
from pipeline.shards.failpoints import failpoint
from pipeline.shards.files import (
    explain_os_error,
    read_regular,
    sync_folder,
    write_atomically,
)
from pipeline.shards.fingerprint import require_same_fingerprint
from pipeline.shards.index import INDEX_NAME, ShardIndex
from pipeline.shards.records import (
    Failure,
    FeatureShape,
    ShardRecord,
    VideoRow,
    dataset_digest,
    shard_name,
    sidecar_name,
)
from pipeline.shards.sealed_json import MAX_BYTES
from pipeline.shards.sidecar import Sidecar, sidecar_numbers

_OURS = re.compile(r"(?:shard-(\d{5,})\.(h5|json)|index\.json)(\.tmp)?")


@dataclass(kw_only=True, slots=True)
class CommittedState:
    """What need not be done again."""

    videos: dict[str, VideoRow] = field(default_factory=dict)
    """Finished videos by id."""
    failures: dict[str, Failure] = field(default_factory=dict)
    """Videos that were tried and could not be used, by id."""
    shards: dict[int, ShardRecord] = field(default_factory=dict)
    """Shard files by number."""
    used_numbers: set[int] = field(default_factory=set)
    """Numbers of shards and of records without a shard; a new shard takes another one."""
    fingerprint: dict[str, Any] | None = None
    """None where nothing is committed."""
    shape: FeatureShape | None = None
    """None where no video is finished."""


def committed(
    folder: Path, fingerprint: Mapping[str, Any] | None = None, *, sweep: bool = True
) -> CommittedState:
    """Read what earlier runs committed, and sweep what they left half-done.

    A listed shard whose file was deleted counts as not done, so that deleting a damaged file and
    running again mends the dataset. The caller holds the folder's lock.

    Args:
        folder: may be absent.
        fingerprint: of the run that asks; None skips the comparison.
        sweep: whether to remove what was left half-done; without it nothing is changed.

    Returns:
        The state; empty for a folder that is absent or new.

    Raises:
        ConfigError: the folder was extracted under another fingerprint.
        ShardError: a record is damaged, or a shard has not the size that is recorded.
    """
    folder, state = Path(folder), CommittedState()
    if not folder.is_dir():
        return state
    names = [match for entry in folder.iterdir() if (match := _OURS.fullmatch(entry.name))]
    if (folder / INDEX_NAME).exists():
        index = ShardIndex.load(folder)
        numbers = {shard.number for shard in index.shards}
        _merge(state, index, numbers, folder)
    for number in sidecar_numbers(folder):
        _merge(state, Sidecar.load(folder, number), {number}, folder)
    if fingerprint is not None and state.fingerprint is not None:
        require_same_fingerprint(folder, state.fingerprint, fingerprint)
    _drop_lost_shards(state, folder)
    if sweep:
        _sweep(state, [match[0] for match in names], folder)
    return state


def _merge(
    state: CommittedState, record: Sidecar | ShardIndex, numbers: set[int], folder: Path
) -> None:
    """Take over one record; what it says of its shard numbers replaces what was said before."""
    if state.fingerprint is None:
        state.fingerprint = record.fingerprint
    require_same_fingerprint(folder, state.fingerprint, record.fingerprint)
    if record.shards and all(state.shards.get(shard.number) == shard for shard in record.shards):
        return  # index.json was made from this sidecar
    if record.videos:
        if state.shape not in (None, record.shape):
            raise ShardError(
                f"shards of {folder} have {state.shape} and {record.shape}; one shape was needed; "
                "extract again into another folder"
            )
        state.shape = record.shape
    if numbers & state.used_numbers:
        state.videos = {k: v for k, v in state.videos.items() if v.shard not in numbers}
    state.used_numbers |= numbers
    state.shards |= {shard.number: shard for shard in record.shards}
    for video in record.videos:
        if video.video_id in state.videos:
            raise ShardError(
                f"{video.video_id} is in {shard_name(video.shard)} and in "
                f"{shard_name(state.videos[video.video_id].shard)} of {folder}; one place was "
                "needed; delete the second file with its .json and run `i2st extract` again"
            )
        state.videos[video.video_id] = video
    state.failures |= {failure.video_id: failure for failure in record.failures}
    for video_id in state.videos.keys() & state.failures.keys():
        del state.failures[video_id]


def _drop_lost_shards(state: CommittedState, folder: Path) -> None:
    for number, shard in list(state.shards.items()):
        path = folder / shard_name(number)
        size = path.lstat().st_size if path.exists() else None
        if size is None:
            del state.shards[number]
            state.used_numbers.discard(number)
            state.videos = {k: v for k, v in state.videos.items() if v.shard != number}
        elif size != shard.size_bytes:
            raise ShardError(
                f"{path} has {size} bytes; {shard.size_bytes} were committed; "
                "delete it and run `i2st extract` again"
            )


def _sweep(state: CommittedState, names: Iterable[str], folder: Path) -> None:
    """Remove temporary files, and shards that no record lists.

    Shards without any record beside them are left: a lost index.json must not cost a dataset.
    """
    for name in names:
        match = _OURS.fullmatch(name)
        assert match is not None
        orphan = match[2] == "h5" and int(match[1]) not in state.used_numbers
        if match[3] or (orphan and state.used_numbers):
            (folder / name).unlink(missing_ok=True)


def finish(folder: Path, dataset: Mapping[str, Any], fingerprint: Mapping[str, Any]) -> ShardIndex:
    """Write index.json from all that is committed, then remove the sidecars.

    Args:
        folder: of the shards; the caller holds its lock.
        dataset: ``name`` and ``classes`` (split -> class names in manifest order).
        fingerprint: of this run; every shard has the same.

    Returns:
        The index as it was written.

    Raises:
        ConfigError: a shard was made under another fingerprint.
        ShardError: a record is damaged, or some train videos have masks and others none.
        ResourceError: the disk is full; the sidecars stay and the next run finishes.
    """
    folder = Path(folder)
    state = committed(folder, fingerprint)
    videos = sorted(state.videos.values())
    _check_masks(state, videos, folder)
    index = ShardIndex(
        dataset=dict(dataset),
        fingerprint=dict(fingerprint),
        digest=dataset_digest(videos),
        shape=state.shape or FeatureShape(0, 0, 0, 0),
        shards=tuple(sorted(state.shards.values())),
        videos=tuple(videos),
        failures=tuple(sorted(state.failures.values())),
    )
    data, path = index.to_bytes(), folder / INDEX_NAME
    if not path.exists() or read_regular(path, max_bytes=MAX_BYTES) != data:
        write_atomically(path, data, kind="index")
    try:
        for number in sidecar_numbers(folder):
            (folder / sidecar_name(number)).unlink()
            failpoint("sidecars.first_removed")
        sync_folder(folder)
    except OSError as error:
        raise explain_os_error(error, folder, 0) from error
    failpoint("sidecars.removed")
    return ShardIndex.load(folder)


def _check_masks(state: CommittedState, videos: Iterable[VideoRow], folder: Path) -> None:
    of_train = {state.shards[video.shard].num_slots for video in videos if video.split == "train"}
    if len(of_train) > 1:
        raise ShardError(
            f"train videos of {folder} have {sorted(of_train)} mask slots; one number was needed; "
            "extract again into another folder"
        )
