"""What commands of stage two begin with: threads, settings, and the features of shards."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.commands.console import note, show_settings


def use_threads(count: int) -> None:
    """Let torch use this many processors."""
    import torch

    # Threads that wait for each other on shared cores measured many times slower than one.
    torch.set_num_threads(count)


def used_threads() -> int:
    """Processors that torch uses."""
    import torch

    return torch.get_num_threads()


def show_training_settings(config: Any, **beside: Any) -> None:
    """Print the settings of a training that it reads.

    Args:
        config: a TrainConfig.
        **beside: what else is to be shown.
    """
    show_settings({**training_settings(config), **beside})


def training_settings(config: Any) -> dict[str, Any]:
    """Settings of a training that it reads, by name.

    Args:
        config: a TrainConfig.

    Returns:
        Values, in the order of the config.
    """
    from i2st_model.evaluating.method_runs import NETWORK_METHOD
    from i2st_model.settings_scope import OF_NETWORK

    unread = {"network", *OF_NETWORK} if config.method != NETWORK_METHOD else set()
    if config.select == "last":
        unread |= {"val_every", "val_episodes", "val_classes"}
    if config.masks == "off":
        unread |= {"beta", "dice"}
    return {name: value for name, value in config.to_dict().items() if name not in unread}


def newest_shards(root: Path) -> Path:
    """Choose shards where none are named, and say so where there were others to choose.

    Args:
        root: folder of all extractions.

    Returns:
        Folder of the newest.

    Raises:
        ConfigError: no finished extraction lies below ``root``.
    """
    from i2st_model.runs import INDEX_NAME, find_newest_shards

    newest = find_newest_shards(root)
    number = len(list(root.glob(f"*/{INDEX_NAME}")))
    if number > 1:
        note(f"{newest} is the newest of {number} extractions in {root}; --shards names another")
    return newest


def open_features(
    folder: Path,
    num_frames: int | None,
    *,
    encoder: Mapping[str, Any] | None = None,
    run: Path | None = None,
    device: str = "auto",
) -> Any:
    """Open the features of shards and say what they hold.

    Args:
        folder: of the shards.
        num_frames: of a clip; None takes all that are stored.
        encoder: settings of the encoder that is to be trained where the shards hold frames.
        run: the training run whose encoder sees the frames.
        device: where an encoder runs.

    Returns:
        The FeatureStore.
    """
    from i2st_model.end_to_end.open_store import open_store, open_store_of

    if run is None:
        store = open_store(folder, encoder=encoder or {}, frames=num_frames, device=device)
    else:
        store = open_store_of(run, folder, frames=num_frames, device=device)
    _note_videos(folder, store.index)
    return store


def open_videos(folder: Path) -> Any:
    """Open shards for their videos alone, be it features or frames that they hold.

    Args:
        folder: of the shards.

    Returns:
        StoredVideos: enough to draw and to check episodes.

    Raises:
        ShardError: the shards are absent or damaged.
    """
    from i2st_model.stored.videos import StoredVideos
    from pipeline.shards.reader import ShardReader

    videos = StoredVideos(ShardReader(folder))
    _note_videos(folder, videos.index)
    return videos


def _note_videos(folder: Path, index: Any) -> None:
    present = index.classes_present
    sizes = "/".join(str(len(names)) for names in present.values())
    note(f"shards: {folder}: {len(index.videos)} videos of {sizes} {'/'.join(present)} classes")
