"""Reading YAML and JSON lines that somebody else wrote: one clear line for each fault."""

import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ManifestError
from pipeline.strict_json import parse_strictly

MAX_YAML_BYTES = 1_000_000
MAX_TABLE_BYTES = 256_000_000
MAX_DEPTH = 12


def read_text(path: Path, *, max_bytes: int) -> str:
    """Text of a regular file; never blocks on a pipe.

    Args:
        path: the file.
        max_bytes: the largest size that makes sense for its kind.

    Returns:
        The text, without a byte order mark.

    Raises:
        ManifestError: it is absent, no regular file, too large, or not UTF-8.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ManifestError(f"{path} is not a regular file; one is needed; pass another path")
        if status.st_size > max_bytes:
            raise ManifestError(
                f"{path} has {status.st_size} bytes; at most {max_bytes} are read; shorten it"
            )
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(f"{path} is absent; a file was needed; pass another path") from None
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise ManifestError(f"{path} cannot be read ({reason}); pass another path") from fault
    except UnicodeDecodeError as fault:
        raise ManifestError(
            f"{path} is not UTF-8 at byte {fault.start}; UTF-8 is needed; save it so"
        ) from fault


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML (or JSON) file: no anchors, no tags, no repeated keys, little nesting.

    Args:
        path: the file; at most 1 MB.

    Returns:
        Dicts, lists and scalars.

    Raises:
        ManifestError: it is not such a file.
    """
    import yaml

    text = read_text(path, max_bytes=MAX_YAML_BYTES)
    loader_class: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Events come from a loop, not from recursion: depth is known before anything is built.
        _check_events(path, yaml.parse(text, Loader=loader_class))
        loader = loader_class(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        what = " ".join(str(getattr(fault, "problem", None) or "unreadable").split())[:120]
        raise ManifestError(f"{path} is not plain YAML{where}: {what!a}; correct it") from fault
    except ValueError as fault:
        raise ManifestError(f"{path} holds a number that is no number; correct it") from fault


def _check_events(path: Path, events: Iterable[Any]) -> None:
    import yaml

    open_maps: list[tuple[set[str], list[bool]] | None] = []
    for event in events:
        line = f"{path} line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ManifestError(f"{line} uses an anchor; plain values are needed; write them out")
        if isinstance(event, yaml.CollectionEndEvent):
            open_maps.pop()
            continue
        node = isinstance(event, yaml.NodeEvent)
        if node and open_maps and open_maps[-1] is not None:
            _check_key(line, event, *open_maps[-1])
        if isinstance(event, yaml.CollectionStartEvent):
            is_map = isinstance(event, yaml.MappingStartEvent)
            open_maps.append((set(), [True]) if is_map else None)
        if len(open_maps) > MAX_DEPTH:
            raise ManifestError(f"{line} nests deeper than {MAX_DEPTH}; flatten it")


def _check_key(line: str, event: Any, seen: set[str], key_is_next: list[bool]) -> None:
    key = getattr(event, "value", None)
    if key_is_next[0]:
        if not isinstance(key, str) or key in seen:
            raise ManifestError(
                f"{line} repeats or nests the key {key!a}; keys occur once; remove it"
            )
        seen.add(key)
    key_is_next[0] = not key_is_next[0]


def read_json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number and object of each line that is not blank.

    Args:
        path: a JSON-lines file.

    Yields:
        tuple[int, Mapping[str, Any]]: Line number and object.

    Raises:
        ManifestError: a line is not one JSON object with keys that occur once.
    """
    for number, line in enumerate(read_text(path, max_bytes=MAX_TABLE_BYTES).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = parse_strictly(line)
        except ValueError as fault:
            reason = str(fault)[:120]
            raise ManifestError(
                f"{path} line {number} is not plain JSON ({reason!a}); correct it"
            ) from fault
        if not isinstance(value, dict):
            raise ManifestError(
                f'{path} line {number} is no JSON object; {{"path": ...}} is needed; correct it'
            )
        yield number, value
