"""Safetensors files whose header carries everything else as JSON, under a seal.

Nothing here can run code: the header is read and bounded before any tensor is.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from i2st_model.checkpoint_checks import damaged
from i2st_model.whole_files import write_whole

METADATA_KEY = "i2st"
SEAL_KEY = "sha256"
MAX_HEADER_BYTES = 1 << 24


def save_tensors(path: Path, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write tensors with a JSON object in the header, whole or not at all."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sealed = {**values, SEAL_KEY: _seal(values, ready)}
    metadata = {METADATA_KEY: json.dumps(sealed, sort_keys=True, allow_nan=False)}
    write_whole(path, safetensors.torch.save(ready, metadata=metadata))


def load_tensors(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the JSON object of the header, and the tensors.

    Args:
        path: the file.

    Returns:
        The JSON object, and the tensors on the CPU.

    Raises:
        CheckpointError: not safetensors, damaged, changed since it was written, or without this
            package's metadata.
    """
    values = _read_values(path)
    try:
        tensors = safetensors.torch.load_file(path)
        # Files of version 1 have no seal.
        seal = values.pop(SEAL_KEY, None)
        if seal is not None and seal != _seal(values, tensors):
            raise damaged(path, "it changed since it was written, its seal does not match")
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise damaged(path, str(error)) from None
    return values, tensors


def _seal(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """sha256 of values and tensors, whatever their order in the file."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True, allow_nan=False).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_values(path: Path) -> dict[str, Any]:
    """Parse the header alone: 8 bytes of length, then JSON whose __metadata__ holds our own."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= MAX_HEADER_BYTES:
            raise damaged(path, f"its header claims {length} bytes, at most {MAX_HEADER_BYTES}")
        header = file.read(length)
    try:
        values = json.loads(json.loads(header)["__metadata__"][METADATA_KEY])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise damaged(path, "its header is not that of an i2st file") from None
    if not isinstance(values, dict):
        raise damaged(path, "its metadata is no object")
    return values
