"""JSON that says one thing: no repeated keys, no NaN, no Infinity."""

import json
from typing import Any


def parse_strictly(text: str | bytes) -> Any:
    """Values of a JSON text.

    Args:
        text: from a file that somebody else may have written.

    Returns:
        Dicts, lists and scalars.

    Raises:
        ValueError: it is not JSON, repeats a key, holds NaN or Infinity, or nests too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it nests too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
