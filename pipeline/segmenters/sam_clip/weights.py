"""Loading of the CLIP of ``sam_clip``: a file that is named or found, else downloaded."""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pipeline.encoders.open_clip_vit import ClipWeights, find_weights, model_config
from pipeline.encoders.weights import fit_state_dict, read_state_dict, sha256_of
from pipeline.errors import BackendError
from pipeline.segmenters.sam_clip.dense_clip import CLIP_MEAN, CLIP_STD, DenseClip

CLIP_DEFAULT = "ViT-B-16-quickgelu/openai"
"""ViT-B/16 gives better cell maps than ViT-L/14: 37.5 against 34.5 mIoU (ClearCLIP, five sets)."""

CLIP_VARIABLE = "I2ST_CLIP_CHECKPOINT"
"""Names a file of the default model's weights."""


def load_clip(
    spec: str | None, device: str, *, mode: str, short_side: int
) -> tuple[DenseClip, dict[str, Any]]:
    """Load an open_clip model, both towers.

    Args:
        spec: ``MODEL/TAG`` or ``MODEL/FILE``; None or empty for CLIP_DEFAULT, whose weights are
            the file that I2ST_CLIP_CHECKPOINT names, where it is set.
        device: torch device.
        mode: of the dense features.
        short_side: pixels of the frame's shorter side at CLIP's input.

    Returns:
        The model, and what the fingerprint says of it.

    Raises:
        BackendError: the weights are absent or for another activation, or the model is no plain
            ViT.
    """
    spec = spec or CLIP_DEFAULT
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
    named = os.environ.get(CLIP_VARIABLE)
    file = Path(named) if named and f"{name}/{tag}" == CLIP_DEFAULT else None
    if file is not None and not file.is_file():
        raise BackendError(
            f"CLIP weights {file}, which {CLIP_VARIABLE} names, are absent; needed: weights of "
            f"{CLIP_DEFAULT}; correct it or unset it"
        )
    try:
        return find_weights(name, tag, file, config)
    except BackendError as error:
        reason = str(error).split(";")[0]
        if "QuickGELU mismatch" in reason:
            raise BackendError(
                f"segmenter 'sam_clip': {reason}; needed: the same activation; give "
                f"`--clip {_twin(name)}/{tag}`"
            ) from error
        raise BackendError(
            f"segmenter 'sam_clip' lacks CLIP {name}/{tag}: {reason}; needed: its weights, such as "
            f"{CLIP_DEFAULT}; give `--clip {name}/FILE`, or name a file of the default's with "
            f"{CLIP_VARIABLE}"
        ) from error


def _twin(name: str) -> str:
    """The same architecture with the other activation, as open_clip names it."""
    suffix = "-quickgelu"
    return name.removesuffix(suffix) if name.endswith(suffix) else name + suffix


def _build_clip(name: str, config: dict[str, Any]) -> Any:
    # Towers of timm and of transformers have no plain ViT, and building one may start a download;
    # CoCa pools its cells by attention.
    foreign = {"timm_model_name", "hf_model_name", "multimodal_cfg"} & {
        *config,
        *config["vision_cfg"],
        *config["text_cfg"],
    }
    if foreign:
        raise BackendError(
            f"CLIP {name} is no pair of plain transformers ({min(foreign)}); needed: a ViT with a "
            f"class token; give `--clip {CLIP_DEFAULT}`"
        )
    import open_clip

    # open_clip.create_model would warn that the weights are random, which they are not for long.
    own = {key: value for key, value in config.items() if key != "custom_text"}
    return (open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP)(**own)
