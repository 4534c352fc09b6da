"""Models of the transformers package: found in a folder or on the hub, hashed, never unpickled.

A model is a folder as save_pretrained writes it: config.json, tokenizer.json and safetensors.
"""

import importlib
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from pipeline.encoders.weights import fetch_from_hub, sha256_of
from pipeline.errors import BackendError
from pipeline.noted_files import note_file
from pipeline.torchvision_shim import ensure_torchvision

OLDEST_VERSION = (5, 9)
"""Of transformers: the first whose SAM 3 takes text features that were computed before."""
HUB_FILES = ("config.json", "tokenizer.json", "model.safetensors")
_OTHERWISE = "`--segmenter precomputed --mask-files DIR`, or `--segmenter none`"


class LoadedModel(NamedTuple):
    """A frozen model on its device, its tokenizer, and what the fingerprint says of both."""

    model: Any
    tokenizer: Any
    """tokenizers.Tokenizer."""
    facts: dict[str, Any]


def load_model(class_name: str, source: str, *, device: str, backend: str) -> LoadedModel:
    """Load a model from a folder, the hub's cache or the hub.

    Args:
        class_name: of transformers, such as ``Sam3Model``.
        source: folder, or ``owner/name`` on the hub.
        device: torch device.
        backend: the segmenter's name, for messages.

    Returns:
        The model in eval mode and float32, and its tokenizer.

    Raises:
        BackendError: the package, a file or a weight is absent, or the model is another one.
    """
    model_class = getattr(_transformers(backend), class_name)
    folder = _model_folder(source, backend)
    files = sorted(folder.glob("*.safetensors"))
    for file in (folder / "config.json", folder / "tokenizer.json"):
        if not file.is_file():
            raise _refused(backend, source, f"{file.name} is absent")
    if not files:
        raise _refused(backend, source, "no .safetensors is there")
    note_file(folder)
    note_file(folder / "config.json")
    try:
        model, tokenizer, missing = _read(model_class, folder)
    except Exception as error:  # a foreign folder fails in a dozen ways inside the package
        lines = f"{type(error).__name__}: {error}".splitlines()
        reason = f"{class_name} cannot be read from it ({lines[0]})"
        raise _refused(backend, source, reason) from error
    # The package only warns of these and goes on with random ones.
    if missing:
        raise _refused(backend, source, f"it lacks {len(missing)} weights, first {missing[0]!r}")
    model.to(torch.device(device)).eval().requires_grad_(False)
    facts = {
        "model": Path(source).resolve().name,
        "weights_sha256": _sha256_of_all(files),
        "tokenizer_sha256": sha256_of(folder / "tokenizer.json"),
        "package": f"transformers {version('transformers')}",
    }
    return LoadedModel(model, tokenizer, facts)


def _read(model_class: Any, folder: Path) -> tuple[Any, Any, list[str]]:
    """Model, tokenizer, and the names of weights that the files lack."""
    model, loading = model_class.from_pretrained(
        folder,
        local_files_only=True,
        use_safetensors=True,
        output_loading_info=True,
        dtype=torch.float32,
    )
    tokenizers = importlib.import_module("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return model, tokenizer, sorted(loading["missing_keys"])


def _transformers(backend: str) -> Any:
    ensure_torchvision()
    try:
        package = importlib.import_module("transformers")
    except ImportError as error:
        raise _wrong_package(backend, f"absent ({error.name or error})") from error
    installed = version("transformers")
    if tuple(int(part) for part in installed.split(".")[:2]) < OLDEST_VERSION:
        raise _wrong_package(backend, f"of version {installed}")
    # Progress bars of the loading would break the one line of progress of an extract.
    package.utils.logging.disable_progress_bar()
    return package


def _wrong_package(backend: str, state: str) -> BackendError:
    oldest = ".".join(map(str, OLDEST_VERSION))
    return BackendError(
        f"the package transformers is {state}; segmenter {backend!r} needs it in version {oldest} "
        f"or later; install it with `pip install 'transformers>={oldest}'`"
    )


def _model_folder(source: str, backend: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise _refused(backend, source, "it is no folder and no owner/name of the hub")
    try:
        files = [fetch_from_hub(source, (name,), encoder=backend) for name in HUB_FILES]
    except BackendError as error:
        reason = str(error).split(";")[0]
        raise BackendError(
            f"segmenter {backend!r} lacks {source}: {reason}; needed: {', '.join(HUB_FILES)}; "
            "where its licence must be accepted first, do so on its page and log in with `hf auth "
            f"login`; or give `--segmenter {backend}:FOLDER`, {_OTHERWISE}"
        ) from error
    return files[0].parent


def _refused(backend: str, source: str, reason: str) -> BackendError:
    return BackendError(
        f"segmenter {backend!r} cannot take {source}: {reason}; needed: a folder with config.json, "
        "tokenizer.json and .safetensors as save_pretrained writes them, or owner/name on the hub; "
        f"give `--segmenter {backend}:FOLDER`, {_OTHERWISE}"
    )


def _sha256_of_all(files: list[Path]) -> str:
    """Of the one file, or of the sorted hashes of several."""
    hashes = [sha256_of(file) for file in files]
    return hashes[0] if len(hashes) == 1 else sha256("\n".join(hashes).encode()).hexdigest()
