"""Checks of a config's fields: types and choices from the annotations, ranges from a table."""

import math
from collections.abc import Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from pipeline.errors import ConfigError
from pipeline.nearest_names import did_you_mean

RANGES: dict[str, tuple[float, float]] = {
    "token_dim": (1, 65_536),
    "grid": (1, 64),
    "embedding_dim": (0, 65_536),
    "base_classes": (0, 1_000_000),
    "pca_dim": (1, 65_536),
    "scale": (0, 1e6),
    "pool_grid": (0, 64),
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
    "focused_tokens": (0, 10),
    "cosine_epsilon": (0, 1),
    "otam_temperature": (1e-3, 1e3),
    "logit_scale": (1e-3, 1e3),
}
"""Least and largest value. The upper limits of sizes keep a damaged checkpoint from asking for all
memory; 3 pairs is what the switch was specified for."""


KINDS = {bool: "truth value", int: "whole number", float: "number", str: "text"}


def check_fields(config: Any, ranges: Mapping[str, tuple[float, float]] = RANGES) -> None:
    """Check each field of a dataclass instance against its annotation and its range.

    Args:
        config: an instance whose annotations are ``bool``, ``int``, ``float``, ``str`` or
            ``Literal``, with or without ``| None``; fields of other types are left alone.
        ranges: least and largest value by field name.

    Raises:
        ConfigError: a value is of another type, no choice of the field, or out of range.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        check_value(field.name, value, field.type)
        if field.name in ranges and value is not None:
            _check_range(field.name, value, *ranges[field.name])


def check_value(name: str, value: Any, annotation: Any) -> None:
    """Check a value against an annotation.

    Args:
        name: of the field or option, for the message.
        value: what it was given.
        annotation: as for `check_fields`.

    Raises:
        ConfigError: the value is of another type, or no choice.
    """
    wanted = required_type(annotation)
    if value is None and wanted is not annotation:
        return
    if get_origin(wanted) is Literal:
        _check_choice(name, value, get_args(wanted))
    elif wanted in (bool, int, float, str):
        _check_type(name, value, wanted)


def required_type(annotation: Any) -> Any:
    """Return what an annotation asks for where the value is not None: of ``int | None``, int."""
    if get_origin(annotation) is not UnionType:
        return annotation
    (wanted,) = (one for one in get_args(annotation) if one is not NoneType)
    return wanted


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        known, near = ", ".join(choices), did_you_mean(str(value), choices)
        raise ConfigError(
            f"{name}={value!r} is unknown{near}; one of {known} is needed; choose one of them"
        )


def _check_type(name: str, value: Any, wanted: Any) -> None:
    # bool is an int to Python, but true frames or channels would be nobody's intention.
    allowed = (int, float) if wanted is float else (wanted,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and wanted is not bool):
        kind = KINDS[wanted]
        raise ConfigError(f"{name}={value!r} is no {kind}; {kind} was needed; pass one")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    # JSON, and so a run's record, has no number for infinity.
    if not low <= value <= high or math.isinf(value):
        allowed = f"{low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}, finite,"
        raise ConfigError(f"{name}={value} is out of range; {allowed} is needed; pass such a value")
