"""Image models of timm; ResNet-50 on ImageNet is the field's standard backbone."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

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

DEFAULT_MODEL = "resnet50"
_HUB_NAMES = ("model.safetensors", "pytorch_model.bin")


def build_timm(
    model: str, *, device: torch.device, grid: int | None = None, weights: Path | None = None
) -> FrozenEncoder:
    """Build a timm model without its classifier.

    Tokens are the map of ``forward_features``; the embedding is what the model's own head pools
    from it before the classifier.

    Args:
        model: a name of ``timm.list_models()``, with or without a tag (``resnet50.a1_in1k``);
            empty for ResNet-50.
        device: where the model runs.
        grid: cells per side of the token grid; None keeps the model's own.
        weights: local weight file; None takes the hub's.

    Returns:
        The encoder, its weights loaded and frozen.

    Raises:
        BackendError: timm or the weights are absent, or the model is unknown or has no square map.
    """
    timm = _timm()
    model = model or DEFAULT_MODEL
    network = _network(timm, model)
    spec = f"timm:{model}"
    path = weights if weights is not None else _fetch(network, spec)
    fit_state_dict(
        network,
        read_state_dict(path),
        source=f"{path} for {spec}",
        may_lack=_classifier_names(network),
    )
    data = timm.data.resolve_model_data_config(network)
    _, height, width = data["input_size"]
    if height != width:
        raise BackendError(
            f"{spec} takes images of {height} x {width}; needed: a square input; "
            "pass a model with one"
        )
    network.to(device).eval().requires_grad_(False)
    return FrozenEncoder(
        name=spec,
        forward=_forward_of(network, spec),
        image_size=int(height),
        mean=data["mean"],
        std=data["std"],
        weights_sha256=sha256_of(path),
        device=device,
        grid=grid,
        package=f"timm {version('timm')}",
        network=network,
    )


def _timm() -> Any:
    ensure_torchvision()
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise BackendError(
            "the package timm is absent; needed by the encoder timm:NAME; "
            "install it with `pip install timm`"
        ) from error
    return timm


def _network(timm: Any, model: str) -> Any:
    try:
        network: Any = timm.create_model(model, pretrained=False, num_classes=0)
    except RuntimeError as error:
        raise BackendError(
            f"timm cannot build {model!r} ({str(error).splitlines()[0]}); needed: a name of "
            "timm.list_models(); pass --encoder timm:resnet50"
        ) from error
    return network


def _forward_of(network: Any, spec: str) -> Forward:
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        features = network.forward_features(images)
        return _as_map(network, features, spec), network.forward_head(features, pre_logits=True)

    return forward


def _as_map(network: Any, features: Tensor, spec: str) -> Tensor:
    """(B, C, h, h) map from what a model returns: NCHW, NHWC, or a sequence after prefix tokens."""
    if features.ndim == 4 and getattr(network, "output_fmt", "NCHW") == "NHWC":
        features = features.permute(0, 3, 1, 2)
    elif features.ndim == 3:
        cells = features[:, getattr(network, "num_prefix_tokens", 0) :]
        side = round(cells.shape[1] ** 0.5)
        if side * side == cells.shape[1]:
            features = cells.transpose(1, 2).unflatten(2, (side, side))
    if features.ndim != 4 or features.shape[2] != features.shape[3]:
        raise BackendError(
            f"{spec} gives features of shape {tuple(features.shape)}; needed: a square map; pass "
            "another model, such as timm:resnet50"
        )
    return features


def _classifier_names(network: Any) -> tuple[str, ...]:
    names = getattr(network, "default_cfg", {}).get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    return tuple(f"{name}." for name in names)


def _fetch(network: Any, spec: str) -> Path:
    config = getattr(network, "pretrained_cfg", {})
    repository = config.get("hf_hub_id")
    if not repository:
        raise absent_weights(spec, "timm names no hub repository for them")
    filename = config.get("hf_hub_filename")
    return fetch_from_hub(repository, (filename,) if filename else _HUB_NAMES, encoder=spec)
