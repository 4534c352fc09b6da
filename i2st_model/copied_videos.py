"""Whether an evaluated video is a copy of one that training saw, under another name and class.

The index of shards keeps a checksum of what each video became, so that equal videos are found
without reading one. That of a train video with masks or stored views covers these too, so among
such shards, as between two datasets, a copy is found by the name of its clip alone; see `leaks`.
"""

from collections.abc import Sequence

from i2st_model.checkpoints import Checkpoint, CheckpointInfo
from i2st_model.leaks import DRAWN
from i2st_model.records.episode_sets import EpisodeSet
from pipeline.errors import ShardError
from pipeline.shards.index import ShardIndex


def copies_of_trained(
    info: CheckpointInfo, index: ShardIndex, video_ids: Sequence[str]
) -> dict[str, str]:
    """Find evaluated videos whose stored content a training run saw in another class.

    Args:
        info: of the run's checkpoint.
        index: of the evaluated shards.
        video_ids: to be evaluated.

    Returns:
        Id of each such video -> id of the train video that it equals, in the order of the index;
        empty where the run was trained on another dataset.
    """
    if info.dataset != index.dataset_name:
        return {}
    trained, asked = set(info.train_classes), set(video_ids)
    of_content = {one.sha256: one.video_id for one in index.videos if one.class_name in trained}
    return {
        one.video_id: of_content[one.sha256]
        for one in index.videos
        if one.video_id in asked and one.class_name not in trained and one.sha256 in of_content
    }


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
        first = ", ".join(f"{one!r} is {other!r}" for one, other in list(copies.items())[:3])
        more = f" and {len(copies) - 3} more" if len(copies) > 3 else ""
        raise ShardError(
            f"{len(copies)} of {len(episodes.video_ids)} evaluated videos equal, feature by "
            f"feature, videos that {checkpoint.path.parent} was trained on: {first}{more}; "
            f"few-shot accuracy needs unseen videos; {remedy}"
        )
