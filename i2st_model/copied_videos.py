"""Whether an evaluated video is a copy of one that training saw, under another name and class.

The index of shards keeps a checksum of each video's features or frames, and a run's checkpoint
those of its train videos, so that copies are found without reading one, across datasets too. Shards
and runs from before these were kept have the checksum of the whole row, which of a train video
covers masks and stored views too: there, copies are found in one dataset without these alone.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from i2st_model.checkpoints import Checkpoint, CheckpointInfo
from i2st_model.leaks import DRAWN, hashed
from i2st_model.records.episode_sets import EpisodeSet
from pipeline.errors import ShardError
from pipeline.shards.index import ShardIndex
from pipeline.shards.records import VideoRow


def feature_hashes(videos: Iterable[VideoRow]) -> list[int]:
    """Hash what the videos of a training run hold, to be kept in its checkpoint.

    Args:
        videos: all train videos.

    Returns:
        64-bit BLAKE2 of each checksum of features, ascending; none of shards that lack them.
    """
    sums = {one.features_sha256 for one in videos} - {""}
    return sorted(hashed(list(sums)).tolist())


def find_copies(
    train_classes: Sequence[str],
    train_features: Sequence[int],
    index: ShardIndex,
    video_ids: Sequence[str],
    *,
    trained_here: bool = True,
) -> dict[str, str | None]:
    """Find evaluated videos whose stored content training sees in another class.

    Args:
        train_classes: classes that training sees.
        train_features: `feature_hashes` of train videos; empty where a run did not keep them.
        index: of the evaluated shards.
        video_ids: to be evaluated.
        trained_here: whether training sees what these shards hold of its classes.

    Returns:
        Id of each such video -> id of the train video that it equals, None where that is not of
        these shards, in the order of the index.
    """
    trained, asked = set(train_classes), set(video_ids)
    others = [v for v in index.videos if v.video_id in asked and v.class_name not in trained]
    known = np.isin(hashed([v.features_sha256 for v in others]), train_features)
    here = [v for v in index.videos if v.class_name in trained] if trained_here else []
    # By the whole row, too: in shards that were added to, some videos have no other checksum.
    named = {one.sha256: one.video_id for one in here}
    named |= {one.features_sha256: one.video_id for one in here if one.features_sha256}
    twins = [named.get(v.features_sha256) or named.get(v.sha256) for v in others]
    return {
        video.video_id: twin
        for video, twin, is_known in zip(others, twins, known.tolist(), strict=True)
        if is_known or twin
    }


def copies_of_trained(
    info: CheckpointInfo, index: ShardIndex, video_ids: Sequence[str]
) -> dict[str, str | None]:
    """Find copies of what the training run of a checkpoint saw; see `find_copies`."""
    return find_copies(
        info.train_classes,
        info.train_feature_hashes,
        index,
        video_ids,
        trained_here=info.dataset == index.dataset_name,
    )


def require_no_copies(
    checkpoint: Checkpoint, episodes: EpisodeSet, index: ShardIndex, *, remedy: str = DRAWN
) -> None:
    """Refuse an evaluation of copies of what training saw.

    Args:
        checkpoint: of the training run.
        episodes: to be evaluated; every video that they are drawn from counts.
        index: of the evaluated shards.
        remedy: what to do about it.

    Raises:
        ShardError: says how many videos, and names the first with those they equal.
    """
    copies = copies_of_trained(checkpoint.info, index, episodes.video_ids)
    if copies:
        first = ", ".join(
            f"{one!r} is {other!r}" if other else repr(one)
            for one, other in list(copies.items())[:3]
        )
        more = f" and {len(copies) - 3} more" if len(copies) > 3 else ""
        raise ShardError(
            f"{len(copies)} of {len(episodes.video_ids)} evaluated videos equal, byte for byte, "
            f"videos that {checkpoint.path.parent} was trained on: {first}{more}; "
            f"few-shot accuracy needs unseen videos; {remedy}"
        )
