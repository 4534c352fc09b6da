"""Options of a segmenter as a command line gives them: names checked, text turned to numbers."""

from collections.abc import Collection, Mapping
from dataclasses import fields
from inspect import Parameter, signature
from typing import Any, TypeVar

from pipeline.errors import ConfigError
from pipeline.nearest_names import did_you_mean

SettingsT = TypeVar("SettingsT")

_NEEDED = {float: "a number of 0 or more", int: "a whole number of 0 or more", str: "a word"}


def settings_from(
    kind: type[SettingsT], options: Mapping[str, Any], *, segmenter: str
) -> SettingsT:
    """Fill a dataclass of settings whose fields are float, int or str.

    Args:
        kind: the dataclass; every field has a default.
        options: name -> value, or the value's text.
        segmenter: its name, for messages.

    Returns:
        The settings.

    Raises:
        ConfigError: there is no such option, or its value is no such number, or negative.
    """
    own = fields(kind)  # type: ignore[arg-type]
    types: dict[str, Any] = {field.name: field.type for field in own}
    defaults = {field.name: field.default for field in own}
    check_names(options, types, segmenter=segmenter)
    values = {}
    for name, value in options.items():
        try:
            values[name] = _converted(types[name], value)
        except (TypeError, ValueError, OverflowError) as error:
            raise ConfigError(
                f"option {name}={value} of segmenter {segmenter!r}; needed: "
                f"{_NEEDED[types[name]]}; pass --segmenter-option {name}={defaults[name]}"
            ) from error
    return kind(**values)


def _converted(kind: type, value: Any) -> Any:
    converted = kind(value)
    # int() cuts 2.5 short without a word; NaN differs from itself.
    if not isinstance(value, str) and converted != value:
        raise ValueError
    if kind is not str and not 0 <= converted < float("inf"):
        raise ValueError
    return converted


def check_no_model(model: str, *, segmenter: str) -> None:
    """Refuse a model beside a segmenter that has none.

    Args:
        model: what stands behind the colon; empty where nothing does.
        segmenter: its name, for messages.

    Raises:
        ConfigError: a model is named.
    """
    if model:
        raise ConfigError(
            f"segmenter {segmenter!r} has no model, {model!r} stands behind the colon; needed: "
            f"its name alone; pass `--segmenter {segmenter}`"
        )


def check_names(options: Collection[str], known: Collection[str], *, segmenter: str) -> None:
    """Refuse options that a segmenter does not have.

    Args:
        options: names that were given.
        known: names that it has.
        segmenter: its name, for messages.

    Raises:
        ConfigError: one is unknown.
    """
    for name in options:
        if name not in known:
            advice = f"known: {', '.join(sorted(known))}; drop it or pass one of these"
            raise ConfigError(
                f"segmenter {segmenter!r} has no option {name!r}{did_you_mean(name, known)}; "
                f"{advice if known else 'it takes none; drop it'}"
            )


def check_options_of(build: Any, options: Collection[str], *, segmenter: str) -> None:
    """Refuse options that a builder which lists its own does not take.

    Args:
        build: registry entry of a segmenter.
        options: names that were given.
        segmenter: its name, for messages.

    Raises:
        ConfigError: one is unknown.
    """
    parameters = signature(build).parameters.values()
    if not any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters):
        known = {parameter.name for parameter in parameters} - {"model", "device", "masks"}
        check_names(options, known, segmenter=segmenter)
