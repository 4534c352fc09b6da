"""Whom a setting is for: those of I2ST's network and losses say nothing to another method."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from i2st_model.config import PRESETS, NetworkConfig
from i2st_model.evaluating.method_runs import NETWORK_METHOD
from i2st_model.training.config import MAPPINGS, TrainConfig
from pipeline.errors import ConfigError

OF_NETWORK = {
    *("preset", "alpha", "beta", "dice", "masks", "slow_rate"),
    *(f"network.{one.name}" for one in fields(NetworkConfig)),
}
"""Settings of training that I2ST alone reads."""
DECIDED_ELSEWHERE = ("token_dim", "grid", "embedding_dim", "base_classes")
"""Network fields that the shards and the classes decide."""


def network_settings(config: TrainConfig) -> dict[str, Any]:
    """Every setting of the network of a run, but for the sizes that shards and classes decide.

    Args:
        config: of the run.

    Returns:
        Values by name: defaults, those of the preset over them, those of the run over both; none
        where the method has no such network.
    """
    if config.method != NETWORK_METHOD:
        return {}
    return {**_without_sizes(network_defaults(config.preset)), **config.network}


def network_defaults(preset: str) -> dict[str, Any]:
    """Every network field that has a default, as a preset leaves it.

    Args:
        preset: its name; an unknown one changes nothing, and is refused where a network is built.

    Returns:
        Values by name.
    """
    own = {one.name: one.default for one in fields(NetworkConfig) if one.default is not MISSING}
    return {**own, **PRESETS.get(preset, {})}


def overriding(in_file: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """What a file of settings changes: of one that says the whole network, what no preset says.

    So a run from a printed file is recorded as the run that it was printed for.

    Args:
        in_file: settings by name; those of the network as ``network.dim``.
        preset: of the network, unless the file names one.

    Returns:
        Those that are left.
    """
    own = _without_sizes(network_defaults(in_file.get("preset", preset)))
    said = {f"network.{name}": value for name, value in own.items()}
    if not set(said) <= set(in_file):
        return dict(in_file)
    return {k: v for k, v in in_file.items() if k not in said or said[k] != v}


def _without_sizes(network: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in network.items() if name not in DECIDED_ELSEWHERE}


def told(config: TrainConfig) -> dict[str, Any]:
    """Settings that say something: those that differ from their default.

    Args:
        config: of a run.

    Returns:
        Values by name; what stands in a mapping is always said, as in ``network.dim``.
    """
    values, defaults = config.to_dict(), TrainConfig().to_dict()
    plain = {k: v for k, v in values.items() if k not in MAPPINGS and v != defaults[k]}
    return plain | {f"{outer}.{k}": v for outer in MAPPINGS for k, v in values[outer].items()}


def require_read(method: str, given: Mapping[str, Any]) -> None:
    """Refuse settings that a method does not read: it would train as if nothing had been said.

    Args:
        method: its name.
        given: settings that a user gave, by name; those of the network as ``network.dim``.

    Raises:
        ConfigError: names the first such setting, and the method.
    """
    for setting in given if method != NETWORK_METHOD else ():
        if setting in OF_NETWORK:
            raise ConfigError(
                f"{setting} is a setting of {NETWORK_METHOD}, which {method} does not read, and is "
                f"given as {given[setting]}; one that it reads was needed; leave it out, or pass "
                f"--method {NETWORK_METHOD}"
            )
