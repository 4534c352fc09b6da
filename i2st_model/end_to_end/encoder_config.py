"""Which encoder is trained from frames, what of it, and how clips vary while it is."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import inf
from typing import Any, Literal

from i2st_model.config_checks import check_fields
from pipeline.errors import ConfigError

Trained = Literal["full", "last_blocks", "lora"]
Geometry = Literal["center_crop", "full_frame"]

RANGES: dict[str, tuple[float, float]] = {
    "grid": (1, 64),
    "blocks": (1, 1000),
    "rank": (1, 1024),
    "rate": (0, inf),
    "jitter": (0, 0.9),
    "frames_at_a_time": (1, inf),
}
"""Least and largest value of each number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderConfig:
    """Every setting of an encoder that trains; part of the train config and so of the checkpoint.

    Normalisation layers keep their running statistics and the encoder its test mode (no dropout, no
    dropped paths), so that a clip's features never depend on its neighbours; the relatives leave
    batch statistics training. Paper: our choice.
    """

    name: str
    """As ``--encoder`` of `i2st extract`: timm:resnet50, open_clip:MODEL/TAG, ..."""
    weights: str | None = None
    """Local file of the initial weights; None takes the hub's, or the package's."""
    grid: int | None = None
    """Cells per side of the token grid; None keeps the encoder's own."""
    geometry: Geometry = "center_crop"
    """What the test view shows; center_crop leaves room for random crops. Paper: inferred from
    HyRSM and MoLo."""
    trained: Trained = "full"
    """full, last_blocks or lora. Paper: inferred from MoLo, which trains all of a ResNet-50."""
    blocks: int = 3
    """Blocks at the end that train under last_blocks; 3 are the last stage of a ResNet-50."""
    rank: int = 8
    """Of the adapters under lora (Hu et al. 2022, arXiv:2106.09685)."""
    rate: float = 1e-5
    """Learning rate of the encoder. Paper: our choice, 1e-5 to 5e-5 for a backbone; adapters start
    from nothing and bear about 1e-3."""
    crop: bool = True
    """Random crops in training, one for all frames of a clip; False keeps the test view."""
    jitter: float = 0.0
    """Largest relative change of brightness, contrast and saturation, drawn per clip. The
    relatives have 0.5 for queries alone."""
    checkpoint_gradients: bool = False
    """Compute activations twice instead of keeping them: memory no longer grows with the clips."""
    frames_at_a_time: int = 16
    """Of one call to the encoder. Measured on one CPU thread: 8 to 16 are fastest."""

    def __post_init__(self) -> None:
        check_fields(self, RANGES)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `encoder_config` rebuilds this config."""
        return asdict(self)


def encoder_config(values: Mapping[str, Any]) -> EncoderConfig:
    """Build a config from a mapping such as ``encoder`` of a train config.

    Args:
        values: fields of `EncoderConfig`; ``name`` is needed.

    Returns:
        The config, checked.

    Raises:
        ConfigError: a key is no field, ``name`` is absent, or a value is out of range.
    """
    known = {field.name for field in fields(EncoderConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"unknown encoder setting {unknown[0]!r}; known: {', '.join(sorted(known))}; "
            "remove it or use the version of i2st that wrote it"
        )
    if "name" not in values:
        raise ConfigError(
            "encoder setting 'name' is absent; an encoder was needed; pass e.g. timm:resnet50"
        )
    try:
        return EncoderConfig(**values)
    except ConfigError as error:
        raise ConfigError(f"encoder.{error}") from None  # it begins with the field's name
