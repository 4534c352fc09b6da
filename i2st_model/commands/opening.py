"""What commands of stage two begin with: threads, and the features of shards."""

from pathlib import Path
from typing import Any

from pipeline.commands.console import note


def use_threads(count: int) -> None:
    """Let torch use this many processors."""
    import torch

    # Threads that wait for each other on shared cores measured many times slower than one.
    torch.set_num_threads(count)


def open_features(folder: Path, num_frames: int | None) -> Any:
    """Open the features of shards and say what they hold.

    Args:
        folder: of the shards.
        num_frames: of a clip; None takes all that are stored.

    Returns:
        The FeatureStore.
    """
    from i2st_model.features import FeatureStore
    from pipeline.shards.reader import ShardReader

    store = FeatureStore(ShardReader(folder), num_frames=num_frames)
    index = store.index
    present = index.classes_present
    sizes = "/".join(str(len(names)) for names in present.values())
    note(f"shards: {folder}: {len(index.videos)} videos of {sizes} {'/'.join(present)} classes")
    return store
