"""Flags with several values in one word, such as 1,3,5, and files that shall be new."""

import re
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import ConfigError


def words(flag: str, text: str) -> list[str]:
    """Split a list of names.

    Args:
        flag: for the message.
        text: names separated by commas; commas in square brackets belong to a name.

    Returns:
        The names, each once.

    Raises:
        ConfigError: a name is empty.
    """
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])", text)]
    if not all(parts):
        raise ConfigError(
            f"{flag} {text!r} holds an empty name; one or several were needed; write "
            "them like a,b,c"
        )
    return list(dict.fromkeys(parts))


def settings_over(flag: str, typed: Sequence[str]) -> dict[str, list[str]]:
    """Split settings with several values each.

    Args:
        flag: for the message.
        typed: words such as beta=0,0.5,1.

    Returns:
        The values of each setting, in the order typed.

    Raises:
        ConfigError: a word has no value, or a setting stands there twice.
    """
    axes: dict[str, list[str]] = {}
    for word in typed:
        setting, equals, values = word.partition("=")
        if not equals or setting in axes:
            raise ConfigError(
                f"{flag} {word!r} cannot be read; a setting and its values, each setting once, "
                f"was needed; write e.g. {flag} beta=0,0.5,1"
            )
        axes[setting] = words(flag, values)
    return axes


def numbers(flag: str, text: str) -> list[int]:
    """Split a list of whole numbers.

    Args:
        flag: for the message.
        text: numbers separated by commas.

    Returns:
        The numbers, each once.

    Raises:
        ConfigError: a part is no whole number.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise ConfigError(
            f"{flag} {text!r} is no list of whole numbers; one or several were needed; write them "
            "like 1,3,5"
        )
    return list(dict.fromkeys(int(part) for part in parts))


def new_file(path: Path | None, flag: str) -> None:
    """Refuse, before the work begins, a file that cannot be made at its end.

    Args:
        path: of the file; None where none is wanted.
        flag: for the message.

    Raises:
        ConfigError: it is there already, or its folder is not.
    """
    if path is None:
        return
    if path.exists() or path.is_symlink():
        raise ConfigError(
            f"{path} is there already; a new file was needed; pass another path as {flag}"
        )
    if not path.parent.is_dir():
        raise ConfigError(
            f"{path.parent} is no folder; one was needed for {path.name}; make it, or pass "
            f"another path as {flag}"
        )
