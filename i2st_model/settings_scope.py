"""Whom a setting is for: those of I2ST's network and losses say nothing to another method."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from i2st_model.config import NetworkConfig
from i2st_model.evaluating.method_runs import NETWORK_METHOD
from pipeline.errors import ConfigError

OF_NETWORK = {
    *("preset", "alpha", "beta", "dice", "masks", "slow_rate"),
    *(f"network.{one.name}" for one in fields(NetworkConfig)),
}
"""Settings of training that I2ST alone reads."""


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
