"""Fingerprints: JSON values that decided the features, and how two of them differ."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

_ABSENT = object()
_SHA256 = re.compile("[0-9a-f]{64}")


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
    there, here = dict(recorded), dict(asked)
    if (there.get("segmenter") is None) != (here.get("segmenter") is None):
        for values in (there, here):
            values.pop("prompts", None)  # they come and go with the segmenter that they are for
    differing = differences(there, here)
    if differing:
        raise ConfigError(
            f"{folder} was extracted with other settings: {', '.join(differing)}; "
            "the same settings were needed; use them, or pass another --out"
        )


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """List the keys, nested ones dotted, whose values differ as JSON, with both values.

    Of two models with other names, the names say it all. Hashes come last, since nobody can type
    them, and shortened.

    Args:
        there: one side's values.
        here: the other's.

    Returns:
        One phrase for each difference; none exactly where both are equal as JSON.
    """
    left, right = json.loads(json.dumps(there)), json.loads(json.dumps(here))
    found = sorted(_differing(left, right, ""), key=lambda one: any(map(_is_hash, one[1:])))
    return [f"{key} {_word(left)} there and {_word(right)} here" for key, left, right in found]


def _differing(left: Any, right: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    """Keys with both values; those inside of mappings that have one name, or none."""
    if left == right:
        return
    both = isinstance(left, Mapping) and isinstance(right, Mapping)
    if both and (not key or _name(left) == _name(right)):
        for name in sorted({*left, *right}):
            inner = f"{key}.{name}" if key else name
            yield from _differing(left.get(name, _ABSENT), right.get(name, _ABSENT), inner)
    else:
        yield key, left, right


def _name(values: Mapping[str, Any]) -> Any:
    return values.get("name", values.get("kind"))


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and _SHA256.fullmatch(value) is not None


def _word(value: Any) -> str:
    if value is None or value is _ABSENT:
        return "none" if value is None else "absent"
    if isinstance(value, Mapping):
        return repr(_name(value)) if _name(value) is not None else "given"
    return f"{value[:12]}..." if _is_hash(value) else f"{value!r:.80}"
