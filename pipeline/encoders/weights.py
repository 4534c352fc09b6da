"""Weight files: read without unpickling code, hash, fit to a network, fetch from the hub.

Nothing here runs code from a file: ``.safetensors``, or torch.load with ``weights_only``.
"""

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import BackendError
from pipeline.noted_files import note_file

_CONTAINERS = ("state_dict", "model_state_dict", "model")
_PROBE_SECONDS = 5.0


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes; the file is noted (pipeline.noted_files)."""
    note_file(path)
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file on the CPU.

    A state dict nested under ``state_dict`` or ``model`` is unwrapped and a ``module.`` prefix,
    left by data-parallel training, is removed.

    Args:
        path: ``.safetensors``, or a file of torch.save.

    Returns:
        Name -> tensor.

    Raises:
        BackendError: the file is absent, damaged, or holds more than tensors.
    """
    if not path.is_file():
        raise BackendError(
            f"weight file {path} is absent; needed: a .safetensors file or a state dict saved by "
            "torch; check the path"
        )
    try:
        loaded = _load(path)
    except Exception as error:  # a damaged file fails in a dozen ways inside torch
        reason = str(error).split("\n")[0].split(". ")[0]
        raise BackendError(
            f"weight file {path} cannot be read ({type(error).__name__}: {reason}); needed: a "
            "state dict of tensors alone; save it as .safetensors, where no code can hide"
        ) from error
    while (inner := _inner(loaded)) is not None:
        loaded = inner
    tensors = {key: value for key, value in loaded.items() if isinstance(value, Tensor)}
    if tensors and all(key.startswith("module.") for key in tensors):
        return {key.removeprefix("module."): value for key, value in tensors.items()}
    return tensors


def fit_state_dict(
    module: nn.Module, state: Mapping[str, Tensor], *, source: str, may_lack: Sequence[str] = ()
) -> None:
    """Load a state dict that must fit the module exactly.

    Args:
        module: receives the weights.
        state: names and tensors.
        source: where they come from, for the error message.
        may_lack: prefixes of entries that either side may lack, such as a classifier.

    Raises:
        BackendError: a name is missing or left over, or a shape differs.
    """
    own = module.state_dict()
    prefixes = tuple(may_lack)
    for problem, names in (
        ("lacks", own.keys() - state.keys()),
        ("adds", state.keys() - own.keys()),
    ):
        names = {name for name in names if not (prefixes and name.startswith(prefixes))}
        if names:
            raise BackendError(
                f"{source} {problem} {len(names)} weights, first {min(names)!r}; needed: the "
                "weights of exactly this model; check the model's name"
            )
    for name in sorted(own.keys() & state.keys()):
        if own[name].shape != state[name].shape:
            raise BackendError(
                f"{source} has {name!r} of shape {tuple(state[name].shape)}; needed: "
                f"{tuple(own[name].shape)}; check the model's name and image size"
            )
    module.load_state_dict(dict(state), strict=False)


def fetch_from_hub(repository: str, filenames: Sequence[str], *, encoder: str) -> Path:
    """Path of the first of ``filenames`` in the local hub cache, else downloaded.

    The hub's client waits and retries for most of a minute where there is no network; so one short
    request tells first whether the hub answers.

    Args:
        repository: ``owner/name`` on the hub.
        filenames: alternatives, the preferred one first.
        encoder: the encoder's spec, for the error message.

    Returns:
        Path of the file in the cache.

    Raises:
        BackendError: the file is not in the cache and cannot be downloaded.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    for filename in filenames:
        cached = try_to_load_from_cache(repository, filename)
        if isinstance(cached, str):
            return _noted(Path(cached))
    if constants.HF_HUB_OFFLINE:
        raise absent_weights(encoder, "HF_HUB_OFFLINE is set")
    _check_hub_answers(constants.ENDPOINT, encoder)
    reason = "no file named"
    for filename in filenames:
        try:
            return _noted(Path(hf_hub_download(repository, filename)))
        except Exception as error:  # the client's own errors, httpx's or requests', OSError
            reason = type(error).__name__
    raise absent_weights(encoder, f"{repository} on the hub: {reason}")


def _noted(path: Path) -> Path:
    """Note what else decides that this file of the hub's cache, snapshots/REVISION/FILE, is it."""
    snapshot = path.parent
    note_file(snapshot)
    note_file(snapshot.parent.parent / "refs" / "main")
    return path


def absent_weights(encoder: str, reason: str) -> BackendError:
    """The error for weights that are neither here nor within reach, naming what to give instead."""
    return BackendError(
        f"weights of {encoder} are absent and cannot be downloaded ({reason}); needed: its weights "
        "or another encoder; pass a local file with --weights FILE, or --encoder "
        "efficientnet-lite0, and --segmenter precomputed --mask-files DIR where SAM is absent too"
    )


def _load(path: Path) -> Mapping[str, object]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        tensors: dict[str, object] = dict(load_file(path, device="cpu"))
        return tensors
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise TypeError(f"the file holds one {type(loaded).__name__}")
    return loaded


def _inner(loaded: Mapping[str, object]) -> Mapping[str, object] | None:
    for key in _CONTAINERS:
        inner = loaded.get(key)
        if isinstance(inner, Mapping):
            return inner
    return None


def _check_hub_answers(endpoint: str, encoder: str) -> None:
    request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "i2st"})
    try:
        urllib.request.urlopen(request, timeout=_PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # an answer, whatever it says
    except OSError as error:
        host = os.path.basename(endpoint.rstrip("/"))
        reason = getattr(error, "reason", error)
        raise absent_weights(encoder, f"{host} does not answer: {reason}") from error
