"""Checks of a config's fields: types and choices from the annotations, ranges from a table."""

import math
from dataclasses import fields
from typing import Any, Literal, get_args, get_origin

from pipeline.errors import ConfigError

RANGES: dict[str, tuple[float, float]] = {
    "token_dim": (1, 65_536),
    "grid": (1, 64),
    "base_classes": (0, 1_000_000),
    "pca_dim": (1, 65_536),
    "scale": (0, 1e6),
    "dim": (4, 8_192),
    "heads": (1, 256),
    "dropout": (0, 0.9),
    "channel_dropout": (0, 0.9),
    "num_instances": (1, 256),
    "perception_layers": (1, 16),
    "mask_floor": (0, 1),
    "mask_width": (1, 4_096),
    "instance_init": (-10, 10),
    "spatial_temporal_pairs": (0, 3),
    "global_weight": (0, 1),
    "compound_tokens": (1, 256),
    "otam_temperature": (1e-3, 1e3),
    "logit_scale": (1e-3, 1e3),
}
"""Least and largest value. The upper limits of sizes keep a damaged checkpoint from asking for all
memory; 3 pairs is what the switch was specified for."""


def check_fields(config: Any) -> None:
    """Check each field of a dataclass instance against its annotation and `RANGES`.

    Args:
        config: an instance whose annotations are ``bool``, ``int``, ``float`` or ``Literal``.

    Raises:
        ConfigError: a value is of another type, no choice of the field, or out of range.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        if get_origin(field.type) is Literal:
            _check_choice(field.name, value, get_args(field.type))
        else:
            _check_type(field.name, value, field.type)
        if field.name in RANGES:
            _check_range(field.name, value, *RANGES[field.name])


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name}={value!r} is unknown; one of {', '.join(choices)} is needed")


def _check_type(name: str, value: Any, wanted: Any) -> None:
    # bool is an int to Python, but true frames or channels would be nobody's intention.
    allowed = (int, float) if wanted is float else (wanted,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and wanted is not bool):
        raise ConfigError(f"{name}={value!r} is no {wanted.__name__}; pass one")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if math.isnan(value) or not low <= value <= high:
        raise ConfigError(f"{name}={value} is out of range; {low:g} to {high:g} is needed")
