"""Shards of either kind as something to train and evaluate on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.encoder_config import encoder_config
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
        The store; that of frames has a `EncodedFrames` as its reader.

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
            f"{folder} holds frames and no encoder is named; features or an encoder were needed; "
            "pass --set encoder.name=timm:resnet50, or extract with `--store features`"
        )
    place = torch.device(resolve_device(device))
    # Adapters are drawn at random; the draw shall not move the caller's generators.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(0)
        trainable = TrainableEncoder(encoder_config(encoder), place)
    return FeatureStore(EncodedFrames(reader, trainable), num_frames=frames)
