"""Videos of shards as a contact sheet shows them, with the masks that the shards hold."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pipeline.datasets import Dataset
from pipeline.errors import ConfigError
from pipeline.extraction.plan import spread_over_classes
from pipeline.manifests import Manifest, Video
from pipeline.prompted_clips import prompted_clips
from pipeline.prompts import PromptTables, class_prompt_sets, prompts_for, prompts_sha256
from pipeline.segmenters import ClipToSegment, Masks
from pipeline.shards.index import ShardIndex
from pipeline.shards.reader import ShardReader
from pipeline.shards.records import Failure, VideoRow
from pipeline.showing.clips import ShownClip, shown_clip
from pipeline.showing.stored_views import as_seen, find_view, geometry_of


def choose_rows(
    reader: ShardReader, video_ids: Sequence[str], *, limit: int, of_train: bool = False
) -> list[int]:
    """Choose rows by video id, or else some that have masks, in turn from every class.

    Args:
        reader: of the shards.
        video_ids: which videos; empty for the first ``limit``.
        limit: most rows where no id is given.
        of_train: choose train videos even where the shards hold no masks.

    Returns:
        Rows in the order of the ids, or of the turns.

    Raises:
        ConfigError: the shards hold no such video.
    """
    row_of = {video_id: row for row, video_id in enumerate(reader.video_ids)}
    for video_id in video_ids:
        if video_id not in row_of:
            raise ConfigError(
                f"{reader.folder} holds no video {video_id!a:.80}; needed: one of its "
                f"{len(row_of)} ids, such as {reader.video_ids[0]!a:.80}; correct --video"
            )
    if video_ids:
        return [row_of[video_id] for video_id in video_ids]
    videos = [_video(row, path="") for row in reader.index.videos]
    of_train = of_train or reader.has_masks
    train = [video for video in videos if video.split == "train"] if of_train else []
    return [row_of[v.video_id] for v in spread_over_classes(train or videos)[:limit]]


def clips_of_shards(
    reader: ShardReader,
    rows: Sequence[int],
    manifest: Manifest,
    source: Dataset | None,
    *,
    prompts: PromptTables | None = None,
    view_name: str | None = None,
) -> Iterator[ShownClip | Failure]:
    """Show rows of shards with the masks that they hold.

    Args:
        reader: of the shards.
        rows: which videos.
        manifest: holds curated prompts.
        source: the videos, whose frames are decoded again; None where the shards hold frames.
        prompts: the user's prompts and the dataset's placeholders.
        view_name: a stored view of train videos; None shows whole frames.

    Yields:
        ShownClip | Failure: Of each row in turn; a Failure where a video is gone or does not
            decode to the frames that were stored.

    Raises:
        ConfigError: the shards hold no such view.
        ShardError: a view is asked for of a video outside train.
    """
    number, view = find_view(reader.index, view_name)
    mode = _prompt_settings(reader.index).get("mode", "nouns")
    if source is None:
        clips = _stored_clips(reader, rows, manifest, prompts, mode)
    else:
        clips = _decoded_clips(reader, rows, manifest, source, prompts, mode, view.phase)
    for row, clip in zip(rows, clips, strict=True):
        if isinstance(clip, Failure):
            yield clip
            continue
        stored = reader.frame_indices([row], [number])[0]
        if np.array_equal(clip.frame_indices, stored):
            shown = shown_clip(clip, _masks_of(reader, row, number))
            yield as_seen(shown, view, geometry_of(reader.index)) if number else shown
        else:
            yield _failure(
                clip.video,
                "other_frames",
                f"decodes to frames {clip.frame_indices.tolist()}; needed: {stored.tolist()}, as "
                "stored; name the folder of the videos that were extracted with --videos",
            )


def prompts_differ(index: ShardIndex, manifest: Manifest, prompts: PromptTables | None) -> bool:
    """Tell whether the masks of these shards were made with other prompts than would be now."""
    settings = _prompt_settings(index)
    train = set(index.classes.get("train", ()))
    sets = class_prompt_sets(manifest, user_table=prompts, mode=settings.get("mode", "nouns"))
    now = prompts_sha256(one for one in sets if one.key in train)
    return bool(settings.get("classes_sha256", now) != now)


def _prompt_settings(index: ShardIndex) -> dict[str, Any]:
    return index.fingerprint.get("prompts") or {}


def _video(row: VideoRow, *, path: str) -> Video:
    return Video(
        video_id=row.video_id,
        path=path,
        class_name=row.class_name,
        split=row.split,
        group=row.group,
    )


def _failure(video: Video, reason: str, message: str) -> Failure:
    return Failure(video.video_id, video.split, video.class_name, reason, message)


def _masks_of(reader: ShardReader, row: int, view: int) -> Masks | None:
    if not reader.has_masks or reader.split[row] != "train":
        return None
    bits, found, score = (array[0] for array in reader.masks([row], [view]))
    return Masks(bits=bits, found=found, score=score)


def _stored_clips(
    reader: ShardReader,
    rows: Sequence[int],
    manifest: Manifest,
    prompts: PromptTables | None,
    mode: str,
) -> Iterator[ClipToSegment | Failure]:
    for row in rows:
        record = reader.index.videos[row]
        video = _video(record, path="")
        yield ClipToSegment(
            video=video,
            frames=reader.images([row])[0],
            frame_indices=reader.frame_indices([row])[0],
            num_frames_decoded=record.num_frames_decoded,
            prompts=prompts_for(manifest, video, user_table=prompts, mode=mode),
        )


def _decoded_clips(
    reader: ShardReader,
    rows: Sequence[int],
    manifest: Manifest,
    source: Dataset,
    prompts: PromptTables | None,
    mode: str,
    phase: float,
) -> Iterator[ClipToSegment | Failure]:
    paths = {video.video_id: video.path for video in source.videos}
    records = [reader.index.videos[row] for row in rows]
    videos = [_video(record, path=paths.get(record.video_id, "")) for record in records]
    frames = reader.index.fingerprint["frames"]
    decoded = prompted_clips(
        manifest,
        [video for video in videos if video.path],
        source.root,
        num_frames=frames["count"],
        frame_rule=frames["rule"],
        prompts=prompts,
        prompt_mode=mode,
        phase=phase,
        # Extraction has accepted what it has stored.
        min_decoded_ratio=0.0,
    )
    for video in videos:
        if video.path:
            yield next(decoded)
        else:
            yield _failure(
                video, "missing", f"no such video in {source.root}; name its folder with --videos"
            )
