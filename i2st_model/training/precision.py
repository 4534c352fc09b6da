"""How clips are encoded in training: in bfloat16 where asked, compiled where asked."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch

from i2st_model.training.config import TrainConfig

Made = TypeVar("Made")


def encoding(config: TrainConfig, device: torch.device) -> AbstractContextManager[Any]:
    """Context in which clips are encoded; scores and losses stay outside, in float32."""
    if config.precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def compiled(config: TrainConfig, encode: Callable[..., Made]) -> Callable[..., Made]:
    """Compile what encodes clips, if the config says so.

    Args:
        config: the run's settings.
        encode: a function of tensors; its modules keep their names.

    Returns:
        What to call instead.
    """
    if not config.compile:
        return encode
    made: Callable[..., Made] = torch.compile(encode)
    return made


def widened(value: torch.Tensor) -> torch.Tensor:
    """Return what autocast narrowed as float32; whole numbers stay what they are."""
    return value.float() if value.is_floating_point() else value
