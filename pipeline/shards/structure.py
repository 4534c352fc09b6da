"""HDF5 files that are plain arrays: builds them, and refuses any other before an array is read.

HDF5 files can name other files (external storage, links, virtual datasets), run filters and declare
shapes far beyond their size. None of that is needed here, so none of it is accepted. Only metadata
is read; the arrays themselves are mapped by offset and never pass through HDF5.
"""

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5l, h5o, h5s, h5t
from numpy.typing import NDArray

from pipeline.errors import ShardError
from pipeline.shards import FORMAT_VERSION
from pipeline.shards.layout import FREE, Spec

FORMAT_ATTRIBUTE = "format_version"
# Pinned, so that the bytes do not follow the installed HDF5's idea of its newest format.
_LIBVER = ("earliest", "v110")
_ALIGNMENT = 64


def build_image(arrays: Mapping[str, NDArray]) -> bytes:
    """Return a whole HDF5 file that holds the arrays, contiguous and unfiltered.

    The bytes depend on the arrays and their order alone.
    """
    with h5py.File(
        "shard",
        "w",
        driver="core",
        backing_store=False,
        libver=_LIBVER,
        alignment_threshold=_ALIGNMENT,
        alignment_interval=_ALIGNMENT,
    ) as file:
        file.attrs.create(FORMAT_ATTRIBUTE, FORMAT_VERSION, dtype="<i8")
        for name, array in arrays.items():
            file.create_dataset(name, data=array)
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


class _UnsafeError(Exception):
    """What is wrong with the file, in words."""


class Place(NamedTuple):
    """Where a dataset lies in its file."""

    offset: int
    """In bytes."""
    sizes: tuple[int, ...]
    """Its shape, all axes known."""


def dataset_places(descriptor: int, path: Path, specs: Mapping[str, Spec]) -> dict[str, Place]:
    """Check a shard's structure and return where each dataset lies.

    Args:
        descriptor: of the open file, which stays open.
        path: for messages.
        specs: the datasets that must be there, and no other.

    Returns:
        Dataset name -> its place.

    Raises:
        ShardError: the file is not HDF5, or holds anything else than these datasets, contiguous,
            unfiltered, inside the file and apart from each other.
        OSError: too many files are open.
    """
    size_bytes = os.fstat(descriptor).st_size
    own = os.dup(descriptor)  # outside: it fails for reasons that are not the file's
    try:
        with os.fdopen(own, "rb") as raw, h5py.File(raw, "r") as file:
            _check_root(file, set(specs))
            places = {
                name: _check_dataset(file, name, spec, size_bytes) for name, spec in specs.items()
            }
            _check_apart(places, specs)
            return places
    except (_UnsafeError, OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ShardError(
            f"{path} is not a shard as i2st writes it ({str(error)[:120]}); plain contiguous "
            "datasets were needed; delete it and run `i2st extract` again"
        ) from None


def _check_root(file: h5py.File, names: set[str]) -> None:
    root = h5py.h5g.open(file.id, b"/")
    if file.userblock_size:
        raise _UnsafeError(f"user block of {file.userblock_size} bytes")
    if root.get_num_objs() != len(names):
        raise _UnsafeError(f"{root.get_num_objs()} objects, {len(names)} expected")
    for name in names:
        if not root.links.exists(name.encode()):
            raise _UnsafeError(f"no {name}")
        if root.links.get_info(name.encode()).type != h5l.TYPE_HARD:
            raise _UnsafeError(f"{name} is a link")
    _check_version(root)


def _check_version(root: h5py.h5g.GroupID) -> None:
    if h5a.get_num_attrs(root) != 1 or not h5a.exists(root, FORMAT_ATTRIBUTE.encode()):
        raise _UnsafeError("unknown attributes")
    attribute = h5a.open(root, FORMAT_ATTRIBUTE.encode())
    scalar = attribute.get_space().get_simple_extent_type() == h5s.SCALAR
    if not scalar or not attribute.get_type().equal(h5t.STD_I64LE):
        raise _UnsafeError(f"{FORMAT_ATTRIBUTE} is no number")
    value = np.zeros((), "<i8")
    attribute.read(value)
    version = int(value)
    if version != FORMAT_VERSION:
        raise _UnsafeError(f"shard format version {version}, this i2st reads {FORMAT_VERSION}")


def _check_dataset(file: h5py.File, name: str, spec: Spec, size_bytes: int) -> Place:
    expected, dtype = spec
    dataset = h5d.open(file.id, name.encode())
    creation, space = dataset.get_create_plist(), dataset.get_space()
    if creation.get_layout() != h5d.CONTIGUOUS or creation.get_external_count():
        raise _UnsafeError(f"{name} is chunked, virtual, compact or in another file")
    if creation.get_nfilters() or h5a.get_num_attrs(dataset) or h5o.get_info(dataset).rc != 1:
        raise _UnsafeError(f"{name} has filters, attributes or a second name")
    if not dataset.get_type().equal(h5t.py_create(dtype, logical=True)):
        raise _UnsafeError(f"{name} is not {dtype}")
    if space.get_simple_extent_type() != h5s.SIMPLE or not _fits(space.shape, expected):
        raise _UnsafeError(f"{name} has shape {space.shape}, {expected} expected")
    offset = dataset.get_offset()
    if offset is None or offset < 0 or offset + _num_bytes(space.shape, dtype) > size_bytes:
        raise _UnsafeError(f"{name} lies outside the file")
    return Place(int(offset), space.shape)


def _fits(sizes: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return len(sizes) == len(expected) and all(
        wanted in (size, FREE) for size, wanted in zip(sizes, expected, strict=True)
    )


def _check_apart(places: Mapping[str, Place], specs: Mapping[str, Spec]) -> None:
    spans = sorted(
        (offset, offset + _num_bytes(sizes, specs[name][1]))
        for name, (offset, sizes) in places.items()
    )
    if any(one[1] > two[0] for one, two in zip(spans, spans[1:], strict=False)):
        raise _UnsafeError("datasets overlap")


def _num_bytes(sizes: tuple[int, ...], dtype: np.dtype) -> int:
    return prod(sizes) * dtype.itemsize
