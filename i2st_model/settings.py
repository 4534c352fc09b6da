"""Settings of a run as a user gives them: flags, `name=value` words, those of an earlier run."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_origin

import yaml

from i2st_model.config import NetworkConfig
from i2st_model.config_checks import required_type
from i2st_model.methods import method_class
from i2st_model.runs import read_config
from i2st_model.settings_file import read_settings
from i2st_model.settings_scope import DECIDED_ELSEWHERE, overriding, require_read, told
from i2st_model.training.config import MAPPINGS, TrainConfig, train_config
from pipeline.errors import CheckpointError, ConfigError
from pipeline.nearest_names import did_you_mean


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordedRun:
    """What a run's config.json says that a later command needs."""

    train: TrainConfig
    shards: Path | None
    """None where they are no longer where they were."""
    threads: int
    """CPU threads it was begun with; 1 where it does not say."""


def recorded_run(run_folder: Path) -> RecordedRun:
    """Read what a run was asked to do, and from which shards.

    Args:
        run_folder: folder of the run.

    Returns:
        Its settings.

    Raises:
        ConfigError: the folder holds no run.
        CheckpointError: its config.json is damaged.
    """
    values = read_config(run_folder)
    try:
        shards = Path(values["shards"])
        train = train_config(values["train"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{run_folder}/config.json lacks {error}; a run's settings were needed; "
            "start another run"
        ) from None
    threads = values.get("threads")
    return RecordedRun(
        train=train,
        shards=shards if shards.is_dir() else None,
        threads=threads if isinstance(threads, int) and threads > 0 else 1,
    )


def change_config(
    config: TrainConfig,
    flags: Mapping[str, Any],
    words: Sequence[str],
    *,
    file: Path | None = None,
) -> TrainConfig:
    """Return the config with a file's settings, flags and `name=value` words on top, in this order.

    Args:
        config: what to start from.
        flags: fields of TrainConfig.
        words: each sets one field of TrainConfig or of NetworkConfig, or an entry of ``network``,
            ``options`` or ``encoder`` as in options.width=64; values are read as YAML.
        file: YAML with the same names, see `read_settings`.

    Returns:
        The changed config, checked; at the learning rate of a method it did not have before,
        unless one is given.

    Raises:
        BackendError: no method has that name.
        ConfigError: a word or the file is malformed, a name or value is not allowed, or a setting
            that was given is one that the method does not read.
    """
    old_method = config.method
    try:
        in_file = overriding(_read(() if file is None else read_settings(file)), config.preset)
        config = _with(config, in_file)
    except ConfigError as error:
        where = "" if file is None or str(file) in str(error) else f"{file}: "
        raise ConfigError(f"{where}{error}") from None
    # `--print-config` writes all there are, also those that say nothing.
    telling = {name: in_file[name] for name in told(config) if name in in_file}
    typed = {**flags, **_read(words)}
    config = _with(config, typed)
    require_read(config.method, {**telling, **typed})
    if config.method == old_method or "fast_rate" in {*in_file, *typed}:
        return config
    return replace(config, fast_rate=method_class(config.method).learning_rate)


def _with(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """The config with other values, those of its mappings under names such as network.dim."""
    outer: dict[str, Any] = {name: dict(getattr(config, name)) for name in MAPPINGS}
    for name, value in values.items():
        mapping, dot, entry = name.partition(".")
        if dot:
            outer[mapping][entry] = value
        else:
            outer[name] = value
    return replace(config, **outer)


def _read(words: Iterable[str]) -> dict[str, Any]:
    """Settings by name, those of the network under network.NAME; the last word of a name wins."""
    return dict(map(_read_word, words))


def _read_word(word: str) -> tuple[str, Any]:
    name, _, text = word.partition("=")
    outer, _, entry = name.partition(".")
    train_types = _types(TrainConfig, without=MAPPINGS)
    network_types = _types(NetworkConfig, without=DECIDED_ELSEWHERE)
    if name in train_types:
        return name, _value(word, text, train_types[name])
    if name in network_types:
        return f"network.{name}", _value(word, text, network_types[name])
    if outer == "network" and entry in network_types:
        return name, _value(word, text, network_types[entry])
    if outer in ("options", "encoder") and entry:
        return name, _value(word, text, None)  # whoever takes them knows their types
    known = {*train_types, *network_types, *(f"network.{one}" for one in network_types)}
    near = did_you_mean(name, sorted(known)) or did_you_mean(entry, sorted(known))
    raise ConfigError(
        f"unknown setting {name!r}{near}; a train or network setting was needed; docs/method.md "
        "lists them"
    )


def _types(config: type, *, without: Sequence[str]) -> dict[str, Any]:
    return {
        field.name: required_type(field.type)
        for field in fields(config)
        if field.name not in without
    }


def _value(word: str, text: str, wanted: Any) -> Any:
    if "=" in word and (wanted is str or get_origin(wanted) is Literal):
        # YAML would read off as false.
        return None if wanted is str and text.strip() == "null" else text.strip()
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = {}
    if "=" not in word or isinstance(value, dict):
        raise ConfigError(
            f"setting {word!r} cannot be read; name=value was needed; write e.g. beta=0.5"
        )
    # YAML reads 1e-3 as a word, for want of a dot.
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    return value
