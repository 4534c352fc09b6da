"""Small files of arrays and one JSON object: the same bytes everywhere, and any change is noticed.

The container is that of safetensors, which other tools read, in one canonical form: arrays sorted
by name, little-endian, without gaps; one metadata entry, JSON with sorted keys that ends in the
sha256 of values and arrays. A file that is not exactly what writing it again would give is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from i2st_model.whole_files import write_whole
from pipeline.errors import ConfigError, RecordError, ResourceError
from pipeline.strict_json import parse_strictly

DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
}
MAX_BYTES = 1 << 30
METADATA_KEY = "i2st"
LENGTH_BYTES = 8
ALIGNMENT = 8

Arrays = dict[str, NDArray[Any]]


def smallest_type(count: int) -> np.dtype:
    """Narrowest type that numbers ``count`` things from 0."""
    return next(dtype for dtype in DTYPES.values() if count <= 1 << (8 * dtype.itemsize))


def dump_arrays(arrays: Mapping[str, NDArray], values: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file.

    Args:
        arrays: name -> array of one of `DTYPES`.
        values: JSON values.

    Returns:
        The whole file; equal arguments give equal bytes on every machine.

    Raises:
        ValueError: an array has another type.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    end = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        little = array.dtype.newbyteorder("<")
        if little not in names:
            raise ValueError(f"array {name!r} has type {array.dtype}; {', '.join(DTYPES)} are kept")
        parts.append(array.astype(little, copy=False).tobytes())
        begin, end = end, end + len(parts[-1])
        header[name] = {
            "data_offsets": [begin, end],
            "dtype": names[little],
            "shape": list(array.shape),
        }
    data, said = b"".join(parts), _canonical(values)
    sealed = _canonical({"sha256": _seal(said, data), "values": values})
    head = _canonical({"__metadata__": {METADATA_KEY: sealed}, **header}).encode("ascii")
    head += b" " * (-(len(head) + LENGTH_BYTES) % ALIGNMENT)
    return len(head).to_bytes(LENGTH_BYTES, "little") + head + data


def save_arrays(path: Path, arrays: Mapping[str, NDArray], values: Mapping[str, Any]) -> str:
    """Write a file, whole or not at all.

    Args:
        path: final place; its folder exists.
        arrays: as for `dump_arrays`.
        values: as for `dump_arrays`.

    Returns:
        sha256 of the file.

    Raises:
        ConfigError: the folder cannot be written.
        ResourceError: the disk is full or fails.
    """
    data = dump_arrays(arrays, values)
    try:
        write_whole(path, data)
    except (ConfigError, ResourceError) as error:
        # The rest of the message was made for runs and says how to resume one.
        why = str(error).partition(";")[0]
        raise type(error)(
            f"{why}; room for {len(data)} bytes in a writable folder was needed; pass another path"
        ) from None
    return hashlib.sha256(data).hexdigest()


def load_arrays(path: Path) -> tuple[dict[str, Any], Arrays, str]:
    """Read a file.

    Args:
        path: of the file.

    Returns:
        Its values, its arrays, and the sha256 of the file.

    Raises:
        ConfigError: there is no such file.
        RecordError: it is too large, of another kind, or changed since it was written.
    """
    if not path.is_file():
        what = "no file" if path.exists() else "absent"
        raise ConfigError(f"{path} is {what}; a file written by i2st was needed; correct its path")
    size = path.stat().st_size
    if size > MAX_BYTES:
        refuse(path, f"it has {size} bytes, at most {MAX_BYTES} are read")
    data = path.read_bytes()
    try:
        values, arrays = _parse(data)
        canonical = dump_arrays(arrays, values) == data
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
        refuse(path, "it is not in the form that i2st writes")
    if not canonical:
        refuse(path, "it changed since it was written, its seal does not match")
    return values, arrays, hashlib.sha256(data).hexdigest()


def refuse(path: Path, why: str) -> NoReturn:
    """Refuse a file for a reason that is found in it.

    Args:
        path: of the file.
        why: a clause.

    Raises:
        RecordError: always.
    """
    raise RecordError(
        f"{path} cannot be used: {why}; an unchanged file written by i2st was needed; restore it, "
        "or make it again"
    )


def _parse(data: bytes) -> tuple[dict[str, Any], Arrays]:
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    body = memoryview(data)[LENGTH_BYTES + length :]
    header = parse_strictly(data[LENGTH_BYTES : LENGTH_BYTES + length])
    values = parse_strictly(header.pop("__metadata__")[METADATA_KEY])["values"]
    if not isinstance(values, dict):
        raise ValueError("values are no object")
    return values, {name: _array(entry, body) for name, entry in header.items()}


def _array(entry: Mapping[str, Any], body: memoryview) -> NDArray[Any]:
    begin, end = entry["data_offsets"]
    shape = entry["shape"]
    if not all(type(number) is int and number >= 0 for number in (begin, end, *shape)):
        raise ValueError("an offset or a size is no whole number")
    # The bytes that are there bound what is made, whatever the shape claims.
    flat: NDArray[Any] = np.frombuffer(body[begin:end], DTYPES[entry["dtype"]])
    return flat.reshape(shape)


def _seal(said: str, data: bytes) -> str:
    return hashlib.sha256(said.encode("ascii") + data).hexdigest()


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
