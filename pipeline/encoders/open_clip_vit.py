"""Image towers of open_clip: CLIP ViT-B/16 and its relatives."""

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.encoders.frozen import Forward, FrozenEncoder
from pipeline.encoders.weights import (
    absent_weights,
    fetch_from_hub,
    fit_state_dict,
    read_state_dict,
    sha256_of,
)
from pipeline.errors import BackendError
from pipeline.torchvision_shim import ensure_torchvision

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_HUB_NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_TWIN = "-quickgelu"


class ClipWeights(NamedTuple):
    """Where the weights come from, and what their publisher says about them."""

    path: Path
    published: dict[str, Any]
    label: str


def build_open_clip(
    model: str, *, device: torch.device, grid: int | None = None, weights: Path | None = None
) -> FrozenEncoder:
    """Build the image tower of an open_clip model.

    Tokens are the last block's cells after the final norm, before the projection; the embedding is
    what ``encode_image`` returns, not normalised to unit length.

    Args:
        model: ``MODEL/TAG`` as in ``open_clip.list_pretrained()``, or ``MODEL/FILE``.
        device: where the tower runs.
        grid: cells per side of the token grid; None keeps the tower's own.
        weights: local file with the weights that ``TAG`` names.

    Returns:
        The encoder, its weights loaded and frozen.

    Raises:
        BackendError: unknown model or tag, absent weights, or weights for another activation.
    """
    name, _, tag = model.partition("/")
    config = model_config(name)
    source = find_weights(name, tag, weights, config)
    visual = _image_tower(config)
    state = read_state_dict(source.path)
    image_state = {
        key.removeprefix("visual."): value
        for key, value in state.items()
        if key.startswith("visual.")
    }
    fit_state_dict(visual, image_state, source=f"{source.path} for open_clip:{name}")
    visual.to(device).eval().requires_grad_(False)
    return FrozenEncoder(
        name=f"open_clip:{name}/{source.label}",
        forward=_forward_of(visual),
        image_size=_square_side(visual, name),
        mean=source.published.get("mean", _CLIP_MEAN),
        std=source.published.get("std", _CLIP_STD),
        weights_sha256=sha256_of(source.path),
        device=device,
        grid=grid,
        package=f"open_clip_torch {version('open_clip_torch')}",
        network=visual,
    )


def _forward_of(visual: Any) -> Forward:
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        output = visual.forward_intermediates(images, indices=1, normalize_intermediates=True)
        return output["image_intermediates"][0], output["image_features"]

    return forward


def _open_clip() -> Any:
    ensure_torchvision()
    return importlib.import_module("open_clip")


def model_config(name: str) -> dict[str, Any]:
    """What open_clip knows of an architecture.

    Args:
        name: as in ``open_clip.list_models()``.

    Returns:
        open_clip's own configuration.

    Raises:
        BackendError: open_clip knows no such model.
    """
    open_clip = _open_clip()
    config = open_clip.get_model_config(name)
    if config is None:
        raise BackendError(
            f"unknown open_clip model {name!r}; needed: a name of open_clip.list_models(), such as "
            "ViT-B-16-quickgelu; pass --encoder open_clip:ViT-B-16-quickgelu/openai"
        )
    return dict(config)


def _image_tower(config: dict[str, Any]) -> Any:
    # The whole model would also build the text tower, which for some models means a download.
    _open_clip()
    from open_clip.model import _build_vision_tower

    tower: Any = _build_vision_tower(
        config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)
    )
    return tower


def _square_side(visual: Any, name: str) -> int:
    size = visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise BackendError(
            f"open_clip:{name} takes images of {height} x {width}; needed: a square input; pass a "
            "model with one"
        )
    return int(height)


def find_weights(name: str, tag: str, weights: Path | None, config: dict[str, Any]) -> ClipWeights:
    """Locate the weights of an open_clip model: a file, the hub's cache, or the hub.

    Args:
        name: the architecture.
        tag: the published weights' tag, or a file.
        weights: local file that is taken in place of a download.
        config: of ``model_config(name)``.

    Returns:
        The file, and what the publisher says about it where the tag is known.

    Raises:
        BackendError: unknown tag, absent weights, or weights for another activation.
    """
    published = _published(name, tag)
    _check_activation(name, tag, published, config)
    if weights is not None:
        return ClipWeights(weights, published, tag or weights.name)
    if Path(tag).is_file():
        return ClipWeights(Path(tag), published, Path(tag).name)
    spec = f"open_clip:{name}/{tag}"
    if not published:
        known = ", ".join(_open_clip().list_pretrained_tags_by_model(name)) or "none"
        raise BackendError(
            f"{tag!r} is neither weights that open_clip knows for {name} (known: {known}) nor a "
            f"file; needed: one of them; pass --encoder open_clip:{name}/TAG or .../FILE"
        )
    repository, _, filename = published.get("hf_hub", "").rpartition("/")
    if not repository:
        raise absent_weights(spec, f"they lie at {published.get('url', 'no address')}")
    names = (filename,) if filename else _HUB_NAMES
    return ClipWeights(fetch_from_hub(repository, names, encoder=spec), published, tag)


def _published(name: str, tag: str) -> dict[str, Any]:
    """What open_clip records about a tag, under the model's name or its quick-gelu twin's."""
    twin = name.removesuffix(_TWIN) if name.endswith(_TWIN) else name + _TWIN
    for candidate in (name, twin):
        found = _open_clip().get_pretrained_cfg(candidate, tag) if tag else None
        if found:
            return dict(found)
    return {}


def _check_activation(
    name: str, tag: str, published: dict[str, Any], config: dict[str, Any]
) -> None:
    """Refuse what open_clip only warns of: weights run with another activation than trained."""
    if not published:
        return
    wants, has = published.get("quick_gelu", False), config.get("quick_gelu", False)
    if wants != has:
        twin = name.removesuffix(_TWIN) + (_TWIN if wants else "")
        activations = {True: "QuickGELU", False: "GELU"}
        raise BackendError(
            f"QuickGELU mismatch: weights {tag!r} were trained with {activations[wants]}, model "
            f"{name} has {activations[has]}; needed: the same activation; pass --encoder "
            f"open_clip:{twin}/{tag}"
        )
