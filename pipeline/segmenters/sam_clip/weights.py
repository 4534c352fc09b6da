"""Loading of the two models of ``sam_clip``: files that are named or found, else downloaded."""

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.encoders.open_clip_vit import ClipWeights, find_weights, model_config
from pipeline.encoders.weights import fit_state_dict, read_state_dict, sha256_of
from pipeline.errors import BackendError, ConfigError
from pipeline.segmenters.sam.attention import use_fused_attention
from pipeline.segmenters.sam.checkpoints import OTHERWISE, VARIABLE, find_checkpoint
from pipeline.segmenters.sam.decoding import SamDecoder
from pipeline.segmenters.sam_clip.dense_clip import CLIP_MEAN, CLIP_STD, DenseClip
from pipeline.torchvision_shim import ensure_torchvision

CLIP_DEFAULT = "ViT-B-16-quickgelu/openai"
"""ViT-B/16 gives better cell maps than ViT-L/14: 37.5 against 34.5 mIoU (ClearCLIP, five sets)."""

CLIP_VARIABLE = "I2ST_CLIP_CHECKPOINT"
"""Names a file of the default model's weights."""

SAM_SIDES = (1024, 768, 512)
"""Pixels of the longer side at SAM's input. It was trained at the first; at 512 its encoder costs a
quarter."""

_SAM_TYPES = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_PATCH_WEIGHT = "image_encoder.patch_embed.proj.weight"


def load_sam(
    spec: str | Path | None,
    device: str,
    *,
    side: int = SAM_SIDES[0],
    compile: bool = False,
) -> tuple[SamDecoder, dict[str, Any]]:
    """Load a segment_anything checkpoint; its shapes say which model it is.

    Args:
        spec: ``vit_b``, ``vit_l``, ``vit_h``, or a file as published or the same as .safetensors;
            None or empty looks in the usual places (sam.checkpoints says which).
        device: torch device.
        side: pixels of the longer side at SAM's input, one of SAM_SIDES.
        compile: whether torch.compile prepares the encoder.

    Returns:
        The model, and what the fingerprint says of it.

    Raises:
        BackendError: the weights are absent or no such checkpoint.
        ConfigError: ``side`` is another number.
        ResourceError: downloaded weights find no room.
    """
    if side not in SAM_SIDES:
        raise ConfigError(
            f"SAM input side {side}; needed: one of {', '.join(map(str, SAM_SIDES))}; pass "
            f"--segmenter-option sam_side={SAM_SIDES[0]}"
        )
    checkpoint, wanted = find_checkpoint(str(spec or ""))
    state = read_state_dict(checkpoint)
    sam_type = _sam_type(state, checkpoint, wanted)
    ensure_torchvision()
    from segment_anything import sam_model_registry

    # The builder itself would unpickle the file.
    sam = sam_model_registry[sam_type](checkpoint=None)
    fit_state_dict(sam, state, source=f"{checkpoint} for SAM {sam_type}")
    resize_input(sam, side)
    sam.to(torch.device(device)).eval().requires_grad_(False)
    use_fused_attention(sam)
    facts = {
        "sam": sam_type,
        "sam_sha256": sha256_of(checkpoint),
        "sam_side": side,
    }
    if compile:
        facts["sam_compiled"] = True
    return SamDecoder(sam, compiled=compile), facts


def resize_input(sam: Any, side: int) -> None:
    """Let a SAM take pictures of another size, in place: its places are interpolated.

    Args:
        sam: segment_anything Sam.
        side: pixels of a square input, a whole number of patches.
    """
    encoder, prompts = sam.image_encoder, sam.prompt_encoder
    grid = side // encoder.patch_embed.proj.kernel_size[0]
    if encoder.img_size != side:
        places = functional.interpolate(
            encoder.pos_embed.permute(0, 3, 1, 2), (grid, grid), mode="bicubic", antialias=True
        )
        encoder.pos_embed = torch.nn.Parameter(places.permute(0, 2, 3, 1), requires_grad=False)
    encoder.img_size = side
    prompts.input_image_size = (side, side)
    prompts.image_embedding_size = (grid, grid)


def _sam_type(state: Mapping[str, Tensor], checkpoint: Path, wanted: str | None) -> str:
    width = state[_PATCH_WEIGHT].shape[0] if _PATCH_WEIGHT in state else None
    if width not in _SAM_TYPES:
        raise BackendError(
            f"{checkpoint} is no SAM checkpoint: width {width}; needed: one of "
            f"{', '.join(_SAM_TYPES.values())}; {OTHERWISE}"
        )
    found = _SAM_TYPES[width]
    if wanted not in (None, found):
        raise BackendError(
            f"{checkpoint} holds SAM {found}; needed: {wanted}; give `--sam {found}`, or unset "
            f"{VARIABLE} where it names that file"
        )
    return found


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
