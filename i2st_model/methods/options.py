"""Options of a method as a user types them behind its name: `otam:temperature=0.1`."""

import inspect
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal, get_origin

import yaml

from i2st_model.config_checks import check_value, required_type
from pipeline.errors import ConfigError
from pipeline.nearest_names import did_you_mean


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split a method's name from the options behind it.

    Args:
        spec: ``NAME`` or ``NAME:OPTION=VALUE:OPTION=VALUE``.

    Returns:
        The name, and the options as text.

    Raises:
        ConfigError: an option has no value.
    """
    name, *words = spec.split(":")
    options = {}
    for word in words:
        option, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(
                f"method {spec!r} has {word!r} behind its name; OPTION=VALUE was needed; write "
                "e.g. otam:temperature=0.1"
            )
        options[option.strip()] = value.strip()
    return name, options


def check_options(name: str, build: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options against the constructor of a method; read those that are text.

    Args:
        name: of the method, for messages.
        build: its class.
        options: text where they were typed, values where they come from a config.

    Returns:
        Options of the types that the constructor's annotations ask for.

    Raises:
        ConfigError: the method has no such option, or a value has another type.
    """
    parameters = inspect.signature(build).parameters
    for option in options:
        if option not in parameters:
            known = ", ".join(parameters) or "none"
            near = did_you_mean(option, parameters)
            raise ConfigError(
                f"{name} has no option {option!r}{near}; known: {known}; leave it out"
            )
    checked = {
        option: _read(value, parameters[option].annotation) for option, value in options.items()
    }
    for option, value in checked.items():
        check_value(option, value, parameters[option].annotation)
    return checked


def _read(value: Any, annotation: Any) -> Any:
    wanted = required_type(annotation)
    if not isinstance(value, str) or wanted is str or get_origin(wanted) is Literal:
        return value
    with suppress(yaml.YAMLError):
        value = yaml.safe_load(value)
    if isinstance(value, str):  # YAML reads 1e-3 as a word, for want of a dot
        with suppress(ValueError):
            return float(value)
    return value
