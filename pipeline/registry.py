"""One look-up idiom for encoders, segmenters and methods; other packages add entry points."""

from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pipeline.errors import BackendError
from pipeline.nearest_names import did_you_mean


def known_names(builtin: Mapping[str, Any], group: str) -> list[str]:
    """Sorted names of the built-in entries and of those that packages add under ``group``."""
    return sorted({*builtin, *(entry.name for entry in entry_points(group=group))})


def require_known(name: str, *, builtin: Mapping[str, Any], group: str, kind: str) -> None:
    """Refuse a name that `find_builder` would not find; imports nothing where there is one.

    Args:
        name: the entry's name, without any ``:MODEL`` suffix.
        builtin: name -> function that imports and builds.
        group: entry-point group in which other packages add entries.
        kind: the word for the error message.

    Raises:
        BackendError: no entry has that name.
    """
    if name not in known_names(builtin, group):
        find_builder(name, builtin=builtin, group=group, kind=kind)


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
        BackendError: no entry has that name, or its package cannot be imported.
    """
    if name in builtin:
        return builtin[name]
    others = entry_points(group=group)
    for entry in others:
        if entry.name == name:
            return _load(entry, kind)
    # Whoever looks for a name shall not be sent to one that is broken.
    broken = {one.name for one in others if one.name not in builtin and not _imports(one, kind)}
    names = known_names(builtin, group)
    known = ", ".join(f"{one} (broken)" if one in broken else one for one in names)
    near = did_you_mean(name, [one for one in names if one not in broken])
    raise BackendError(f"unknown {kind} {name!r}{near}; known: {known}; pass one of these")


def _load(entry: EntryPoint, kind: str) -> Callable[..., Any]:
    """Import an entry of another package; whatever that raises is a fault of the package."""
    try:
        loaded: Callable[..., Any] = entry.load()
    except Exception as error:
        package = entry.dist.name if entry.dist else entry.value
        raise BackendError(
            f"{kind} {entry.name!r} is broken: its entry point {entry.value} does not import "
            f"({type(error).__name__}: {str(error):.200}); one that imports was needed; mend or "
            f"uninstall the package {package}, or pass another {kind}"
        ) from error
    return loaded


def _imports(entry: EntryPoint, kind: str) -> bool:
    try:
        _load(entry, kind)
    except BackendError:
        return False
    return True
