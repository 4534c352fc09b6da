"""Loading of the two models of ``sam_clip`` from local files, or CLIP from the hub."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.encoders.open_clip_vit import ClipWeights, find_weights, model_config
from pipeline.encoders.weights import fit_state_dict, read_state_dict, sha256_of
from pipeline.errors import BackendError
from pipeline.segmenters.dense_clip import CLIP_MEAN, CLIP_STD, DenseClip
from pipeline.segmenters.sam_decoding import SamDecoder
from pipeline.torchvision_shim import ensure_torchvision

CLIP_DEFAULT = "ViT-B-16-quickgelu/openai"
"""ViT-B/16 gives better cell maps than ViT-L/14: 37.5 against 34.5 mIoU (ClearCLIP, five sets)."""

SAM_DEFAULT = Path("weights/sam_vit_b_01ec64.pth")
"""Looked at where no checkpoint is named, so that the plain command works once it lies there."""

_SAM_TYPES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_PATCH_WEIGHT = "image_encoder.patch_embed.proj.weight"
_OTHERWISE = "`--segmenter precomputed --masks DIR`, or `--segmenter none`"


def load_sam(checkpoint: Path | None, device: str) -> tuple[SamDecoder, dict[str, Any]]:
    """Load a segment_anything checkpoint; its shapes say which model it is.

    Args:
        checkpoint: file as published, or the same as .safetensors; None looks for SAM_DEFAULT.
        device: torch device.

    Returns:
        The model, and what the fingerprint says of it.

    Raises:
        BackendError: the file is not given, absent, or no such checkpoint.
    """
    checkpoint = SAM_DEFAULT if checkpoint is None else checkpoint
    if not checkpoint.is_file():
        raise BackendError(
            f"segmenter 'sam_clip' finds no SAM weights {checkpoint}; needed: a segment_anything "
            "checkpoint such as sam_vit_b_01ec64.pth; put it there, or give "
            f"`--segmenter sam_clip:FILE`, {_OTHERWISE}"
        )
    state = read_state_dict(checkpoint)
    sam_type = _sam_type(state, checkpoint)
    ensure_torchvision()
    from segment_anything import sam_model_registry

    # The builder itself would unpickle the file.
    sam = sam_model_registry[sam_type](checkpoint=None)
    fit_state_dict(sam, state, source=f"{checkpoint} for SAM {sam_type}")
    sam.to(torch.device(device)).eval().requires_grad_(False)
    decoder = SamDecoder(sam)
    facts = {
        "sam": sam_type,
        "sam_sha256": sha256_of(checkpoint),
        "sam_side": decoder.side,
    }
    return decoder, facts


def _sam_type(state: Mapping[str, Tensor], checkpoint: Path) -> str:
    width = state[_PATCH_WEIGHT].shape[0] if _PATCH_WEIGHT in state else None
    if width not in _SAM_TYPES:
        raise BackendError(
            f"{checkpoint} is no SAM checkpoint: width {width}; needed: one of "
            f"{', '.join(_SAM_TYPES.values())}; give `--segmenter sam_clip:FILE`, {_OTHERWISE}"
        )
    return _SAM_TYPES[width]


def load_clip(
    spec: str, device: str, *, mode: str, short_side: int
) -> tuple[DenseClip, dict[str, Any]]:
    """Load an open_clip model, both towers.

    Args:
        spec: ``MODEL/TAG`` or ``MODEL/FILE``.
        device: torch device.
        mode: of the dense features.
        short_side: pixels of the frame's shorter side at CLIP's input.

    Returns:
        The model, and what the fingerprint says of it.

    Raises:
        BackendError: the weights are absent, or the model is no plain ViT.
    """
    name, _, tag = spec.partition("/")
    config = model_config(name)
    weights = _clip_weights(name, tag, config)
    model = _build_clip(name, config)
    fit_state_dict(model, read_state_dict(weights.path), source=f"{weights.path} for CLIP {name}")
    model.to(torch.device(device)).eval().requires_grad_(False)
    import open_clip

    dense = DenseClip(
        model,
        open_clip.get_tokenizer(name),
        mode=mode,
        short_side=short_side,
        mean=weights.published.get("mean") or CLIP_MEAN,
        std=weights.published.get("std") or CLIP_STD,
    )
    facts = {
        "clip": f"{name}/{weights.label}",
        "clip_sha256": sha256_of(weights.path),
        "clip_mode": mode,
        "clip_short_side": short_side,
        "clip_package": f"open_clip_torch {version('open_clip_torch')}",
    }
    return dense, facts


def _clip_weights(name: str, tag: str, config: dict[str, Any]) -> ClipWeights:
    try:
        return find_weights(name, tag, None, config)
    except BackendError as error:
        reason = str(error).split(";")[0]
        raise BackendError(
            f"segmenter 'sam_clip' lacks CLIP {name}/{tag}: {reason}; needed: its weights, such as "
            f"{CLIP_DEFAULT}; give `--segmenter sam_clip:SAM_FILE,{name}/FILE`, {_OTHERWISE}"
        ) from error


def _build_clip(name: str, config: dict[str, Any]) -> Any:
    # Towers of timm and of transformers have no plain ViT, and building one may start a download.
    foreign = {"timm_model_name", "hf_model_name"} & {*config["vision_cfg"], *config["text_cfg"]}
    if foreign:
        raise BackendError(
            f"CLIP {name} has a tower of another package ({min(foreign)}); dense features need a "
            f"plain ViT; give a model such as {CLIP_DEFAULT}"
        )
    import open_clip

    # open_clip.create_model would warn that the weights are random, which they are not for long.
    own = {key: value for key, value in config.items() if key != "custom_text"}
    return (open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP)(**own)
