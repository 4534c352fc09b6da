"""JSON that people can read and that notices any change: one row per line, a seal at the end.

The last entry, ``sealed_sha256``, is the sha256 of all bytes before it. A flipped bit, a cut file
and an edit by hand are all refused.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pipeline.errors import ShardError
from pipeline.shards import FORMAT_VERSION
from pipeline.shards.files import read_regular
from pipeline.strict_json import parse_strictly

MAX_BYTES = 1 << 30
_SEAL = re.compile(rb'"sealed_sha256": "([0-9a-f]{64})"\n\}\n\Z')
_SEAL_LENGTH = len('"sealed_sha256": ""\n}\n') + 64

Row = TypeVar("Row", bound=NamedTuple)


class Table(NamedTuple):
    """Rows of one NamedTuple type, written as one line each."""

    row_type: type
    rows: Sequence[Any]


def seal(document: Mapping[str, Any]) -> bytes:
    """Return a document as sealed JSON; ``format_version`` comes first."""
    entries = {"format_version": FORMAT_VERSION, **document}
    lines = [f"{_text(key)}: {_value(value)},\n" for key, value in entries.items()]
    # A file name that is not UTF-8 becomes \udcXX, which is how JSON itself would escape it.
    body = ("{\n" + "".join(lines)).encode("utf-8", "backslashreplace")
    return body + f'"sealed_sha256": "{hashlib.sha256(body).hexdigest()}"\n}}\n'.encode()


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _value(value: Any) -> str:
    if not isinstance(value, Table):
        return _text(value)
    columns = _columns(value)
    rows = ",\n".join(_text(list(row[: len(columns)])) for row in value.rows)
    return f'{{"columns": {_text(columns)}, "rows": [\n{rows}\n]}}'


def _columns(table: Table) -> list[str]:
    """Names of the columns; last ones that say nothing are left out, as in files from before them.

    So a document that was read is written again byte for byte.
    """
    columns = list(table.row_type._fields)  # type: ignore[attr-defined]
    defaults = table.row_type._field_defaults  # type: ignore[attr-defined]
    while columns[-1] in defaults and all(
        row[len(columns) - 1] == defaults[columns[-1]] for row in table.rows
    ):
        columns.pop()
    return columns


def load_sealed(path: Path) -> dict[str, Any]:
    """Read a sealed document.

    Args:
        path: of the file.

    Returns:
        Its entries.

    Raises:
        ShardError: not JSON, of another format version, or changed since it was written.
    """
    data = read_regular(path, max_bytes=MAX_BYTES)
    document = _parse(data, path)
    version = document.get("format_version")
    if version != FORMAT_VERSION or type(version) is not int:
        raise ShardError(
            f"{path} has shard format version {version!r:.40}; this i2st reads version "
            f"{FORMAT_VERSION}; use the i2st that wrote it, or extract again into another folder"
        )
    match = _SEAL.search(data, max(0, len(data) - _SEAL_LENGTH))
    body = data[: len(data) - _SEAL_LENGTH]
    if match is None or hashlib.sha256(body).hexdigest() != match[1].decode():
        raise ShardError(
            f"{path} differs from what was written (its seal does not match); an unchanged file "
            "was needed; restore it, or delete the folder and run `i2st extract` again"
        )
    return document


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        document = parse_strictly(data)
    except ValueError as error:
        raise ShardError(
            f"{path} is not valid JSON ({str(error)[:80]}); an unchanged file was needed; "
            "restore it, or delete the folder and run `i2st extract` again"
        ) from None
    if not isinstance(document, dict):
        raise malformed(path, "the top level")
    return document


def read_table(document: Mapping[str, Any], key: str, row_type: type[Row], path: Path) -> list[Row]:
    """Read one table of a document.

    Args:
        document: from ``load_sealed``.
        key: the table's name.
        row_type: NamedTuple of str and int fields; last ones with defaults may lack.
        path: for messages.

    Returns:
        The rows.

    Raises:
        ShardError: columns, lengths or types differ from those of ``row_type``.
    """
    table = document.get(key)
    if not isinstance(table, dict) or not _are_columns(table.get("columns"), row_type):
        raise malformed(path, key)
    columns, rows = table["columns"], table.get("rows")
    if not isinstance(rows, list) or any(
        type(row) is not list or len(row) != len(columns) for row in rows
    ):
        raise malformed(path, key)
    kinds = row_type.__annotations__.values()
    for column, kind in zip(zip(*rows, strict=True), kinds, strict=False):
        if set(map(type, column)) != {kind} or (kind is int and min(column) < 0):
            raise malformed(path, key)
    return [row_type(*row) for row in rows]


def _are_columns(columns: Any, row_type: type[NamedTuple]) -> bool:
    fields = list(row_type._fields)
    least = len(fields) - len(row_type._field_defaults)
    return isinstance(columns, list) and len(columns) >= least and columns == fields[: len(columns)]


def malformed(path: Path, what: str) -> ShardError:
    """Return the error for a document whose seal is right and whose content is not."""
    return ShardError(
        f"{path} is malformed at {what}; the layout of format version {FORMAT_VERSION} was "
        "needed; it was not written by i2st, extract again into another folder"
    )
