"""Fingerprints: JSON values that decided the features, and how two of them differ."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError


def require_same_fingerprint(
    folder: Path, recorded: Mapping[str, Any], asked: Mapping[str, Any]
) -> None:
    """Refuse to mix features that were made differently.

    Args:
        folder: for the message.
        recorded: fingerprint of what is there.
        asked: fingerprint of this run.

    Raises:
        ConfigError: names each key that differs, with both values.
    """
    differing = differences(recorded, asked)
    if differing:
        raise ConfigError(
            f"{folder} was extracted with other settings: {', '.join(differing)}; "
            "the same settings were needed; use them, or pass another --out"
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """List the keys, nested ones dotted, whose values differ as JSON, with both values."""
    left, right = _flatten(json.loads(json.dumps(there))), _flatten(json.loads(json.dumps(here)))
    return [
        f"{key} {left.get(key, 'absent')!r:.80} there and {right.get(key, 'absent')!r:.80} here"
        for key in sorted({*left, *right})
        if key not in left or key not in right or left[key] != right[key]
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
