"""Configs of the network: by the name of a preset, or from a mapping as in a checkpoint."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from i2st_model.network_settings import NetworkConfig
from pipeline.errors import ConfigError
from pipeline.nearest_names import did_you_mean

__all__ = ["PRESETS", "NetworkConfig", "network_config", "preset"]

PRESETS: dict[str, dict[str, Any]] = {
    # What measured best with both components in place, on JHMDB-21.
    "i2st": {},
    # The learned projection alone, Bi-MHM on it: a control.
    "linear": {
        "instances": "none",
        "spatial_temporal_pairs": 0,
        "global_fusion": "mean",
        "global_weight": 0.0,
    },
    # Mask-pooled instances without spatial or temporal attention: a control.
    "pool_linear": {"spatial_temporal_pairs": 0, "global_fusion": "mean"},
    # As first specified from the paper's summary, before any measurement.
    "specified": {"instances": "queries", "dim": 512, "mask_width": 128, "instance_init": 0.0},
}


def preset(name: str, **settings: Any) -> NetworkConfig:
    """Return the config called ``name``, with ``settings`` on top.

    Args:
        name: a key of `PRESETS`.
        **settings: fields of `NetworkConfig`; ``token_dim`` and ``grid`` are needed.

    Returns:
        The config, checked.

    Raises:
        ConfigError: no preset or no field has that name, or a value is out of range.
    """
    if name not in PRESETS:
        known = ", ".join(sorted(PRESETS))
        near = did_you_mean(name, PRESETS)
        raise ConfigError(f"unknown preset {name!r}{near}; known: {known}; pass one of these")
    return network_config({**PRESETS[name], **settings})


def network_config(values: Mapping[str, Any]) -> NetworkConfig:
    """Build a config from a mapping such as a checkpoint's JSON.

    Args:
        values: fields of `NetworkConfig`; ``token_dim`` and ``grid`` are needed.

    Returns:
        The config, checked.

    Raises:
        ConfigError: a key is no field, a needed one is absent, or a value is out of range.
    """
    known = {field.name for field in fields(NetworkConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"unknown network setting {unknown[0]!r}; known: {', '.join(sorted(known))}; "
            "remove it or use the version of i2st that wrote it"
        )
    missing = sorted({"token_dim", "grid"} - set(values))
    if missing:
        raise ConfigError(f"network setting {missing[0]!r} is absent; the shards' index gives it")
    return NetworkConfig(**values)
