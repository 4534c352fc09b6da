"""Settings of a run in a YAML file, such as `i2st train --print-config` prints.

    method: trx
    options: {width: 64}
    episodes: 6400
    network:
      dim: 64

A run's config.json is such a file too: JSON is YAML, and its settings are under ``train``.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import ConfigError

MAX_BYTES = 1 << 20
NULL = "tag:yaml.org,2002:null"
"""Of ~ and of nothing, too."""


def read_settings(path: Path) -> list[str]:
    """Read a file of settings as the words that `--set` takes.

    Args:
        path: a YAML mapping of names to values; one level of mappings inside.

    Returns:
        Words such as ``network.dim=64``, in the order of the file.

    Raises:
        ConfigError: the file is absent, empty, no YAML mapping, or says something twice.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} has more than {MAX_BYTES} bytes; settings were needed")
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        words = [f"{name}={text}" for name, text in _flat(_settings(node, path), path, "")]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        why = " ".join(str(error).split())[:200]
        state = "is absent" if isinstance(error, FileNotFoundError) else f"cannot be read: {why}"
        raise ConfigError(
            f"{path} {state}; a YAML file of settings was needed; write it as "
            "`i2st train --print-config` does"
        ) from None
    if not words:
        raise ConfigError(
            f"{path} holds no setting; name: value lines were needed; write them as "
            "`i2st train --print-config` does"
        )
    return words


def write_settings(values: Mapping[str, Any]) -> str:
    """Settings as YAML text that `read_settings` takes."""
    text: str = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return text


def _settings(node: yaml.Node | None, path: Path) -> yaml.Node | None:
    """What stands under ``train`` in a run's config.json, else the whole."""
    keys = {key.value: value for key, value in _pairs(node, path)}
    return keys["train"] if {"train", "digest"} <= set(keys) else node


def _pairs(node: yaml.Node | None, path: Path) -> list[tuple[yaml.Node, yaml.Node]]:
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path} holds no mapping; name: value lines were needed; write such")
    return list(node.value)


def _flat(node: yaml.Node | None, path: Path, before: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for key, value in _pairs(node, path):
        name = f"{before}{key.value}"
        if name in seen:
            raise ConfigError(f"{path} says {name} twice; once was needed; remove one")
        seen.add(name)
        if isinstance(value, yaml.MappingNode) and not before:
            yield from _flat(value, path, f"{name}.")
        elif isinstance(value, yaml.ScalarNode):
            yield name, "null" if value.tag == NULL else value.value
        else:
            yield name, yaml.serialize(value)
