"""One look-up idiom for encoders, segmenters and methods; other packages add entry points."""

from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any

from pipeline.errors import BackendError


def known_names(builtin: Mapping[str, Any], group: str) -> list[str]:
    """Sorted names of the built-in entries and of those that packages add under ``group``."""
    return sorted({*builtin, *(entry.name for entry in entry_points(group=group))})


def find_builder(
    name: str, *, builtin: Mapping[str, Callable[..., Any]], group: str, kind: str
) -> Callable[..., Any]:
    """Return the builder registered as ``name``; imports only the one that was asked for.

    Args:
        name: the entry's name, without any ``:MODEL`` suffix.
        builtin: name -> function that imports and builds.
        group: entry-point group in which other packages add entries, e.g. ``i2st.encoders``.
        kind: the word for the error message, e.g. ``encoder``.

    Returns:
        The function or class that builds the entry.

    Raises:
        BackendError: no entry has that name.
    """
    if name in builtin:
        return builtin[name]
    for entry in entry_points(group=group):
        if entry.name == name:
            loaded: Callable[..., Any] = entry.load()
            return loaded
    known = ", ".join(known_names(builtin, group))
    raise BackendError(f"unknown {kind} {name!r}; known: {known}; pass one of these")
