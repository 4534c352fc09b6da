"""Shards of either kind as something to train and evaluate on: frames need an encoder, or a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from i2st_model.checkpoints import Checkpoint, load_checkpoint, load_weights
from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.encoder_config import encoder_config
from i2st_model.end_to_end.frame_store import FrameStore
from i2st_model.end_to_end.trainable import TrainableEncoder
from i2st_model.features import FeatureStore
from pipeline.devices import resolve_device
from pipeline.errors import ConfigError
from pipeline.shards.reader import ShardReader


def open_store(
    folder: Path,
    *,
    encoder: Mapping[str, Any],
    frames: int | None = None,
    device: str = "auto",
) -> FeatureStore:
    """Open shards: cached features as they are, frames through an encoder.

    Args:
        folder: of the shards.
        encoder: fields of `EncoderConfig`; empty for cached features.
        frames: T, frames of a clip; all stored ones unless given.
        device: where the encoder runs: auto, cpu or cuda.

    Returns:
        The store; that of frames is a `FrameStore`.

    Raises:
        BackendError: the encoder, its package or its weights are absent.
        ConfigError: shards and encoder do not go together.
        ShardError: the shards are absent or damaged.
    """
    reader = ShardReader(folder)
    if reader.index.stores == "features":
        if encoder:
            raise ConfigError(
                f"encoder={encoder.get('name')!r} trains from frames, {folder} holds features; "
                "leave the encoder out, or extract into another folder with `--store frames`"
            )
        return FeatureStore(reader, num_frames=frames)
    if not encoder:
        raise ConfigError(
            f"{folder} holds frames; features were needed; name shards of features (--shards), "
            "extract some (--store features), or train an encoder on these frames with --set "
            "encoder.name=efficientnet-lite0"
        )
    place = torch.device(resolve_device(device))
    # Learners draw adapters from their run's seed; this draw shall not move the caller's state.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        trainable = TrainableEncoder(encoder_config(encoder), place)
    return FrameStore(EncodedFrames(reader, trainable), num_frames=frames)


def open_store_of(
    run: Path, folder: Path, *, frames: int | None = None, device: str = "auto"
) -> FeatureStore:
    """Open shards for a trained network; frames are seen by the encoder that was trained with it.

    Args:
        run: folder of a finished training run.
        folder: of the shards.
        frames: T, frames of a clip; all stored ones unless given.
        device: where the encoder runs: auto, cpu or cuda.

    Returns:
        The store, for any method: baselines then see what the trained encoder makes of the frames.

    Raises:
        BackendError: the encoder's initial weights are absent.
        ConfigError: shards and run do not go together, or the run is not finished.
        CheckpointError: the checkpoint is damaged.
        ShardError: the shards are absent or damaged.
    """
    checkpoint = load_checkpoint(run)
    encoder = checkpoint.info.train.get("encoder", {})
    store = open_store(folder, encoder=encoder, frames=frames, device=device)
    if isinstance(store.reader, EncodedFrames):
        load_encoder(store.reader, checkpoint)
    return store


def load_encoder(reader: EncodedFrames, checkpoint: Checkpoint) -> None:
    """Give a store's encoder the weights of a run, unless it has them already.

    Args:
        reader: of frames.
        checkpoint: of the run.

    Raises:
        ConfigError: the encoder has the weights of another run; methods that were prepared with
            them would change behind the caller's back.
        CheckpointError: the run's weights do not fit.
    """
    if reader.weights_of not in (None, checkpoint.path):
        raise ConfigError(
            f"{reader.folder} is seen by the encoder of {reader.weights_of}, that of "
            f"{checkpoint.path} is another; one encoder at a time was needed; evaluate the runs "
            "one by one"
        )
    load_weights(reader.encoder, part_of(checkpoint, "encoder"), checkpoint.path)
    reader.weights_of = checkpoint.path


def load_end_to_end(reader: EncodedFrames, head: nn.Module, checkpoint: Checkpoint) -> None:
    """Load the checkpoint of a run that trained an encoder; `Checkpoint.load_into` for such runs.

    Args:
        reader: of frames; its encoder gets the run's weights.
        head: the network above the encoder; gets the rest.
        checkpoint: of the run.

    Raises:
        ConfigError: the reader's encoder belongs to another run.
        CheckpointError: the weights do not fit.
    """
    load_encoder(reader, checkpoint)
    load_weights(head, part_of(checkpoint, "head"), checkpoint.path)


def part_of(checkpoint: Checkpoint, part: str) -> dict[str, torch.Tensor]:
    """Weights of the ``encoder`` or of the ``head`` of a run that trained both."""
    prefix = f"{part}."
    return {
        name.removeprefix(prefix): value
        for name, value in checkpoint.weights.items()
        if name.startswith(prefix)
    }
