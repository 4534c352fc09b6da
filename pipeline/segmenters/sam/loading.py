"""Loading of SAM: which model a checkpoint holds, fitted to an input side and a device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.encoders.weights import fit_state_dict, read_state_dict, sha256_of
from pipeline.errors import BackendError, ConfigError
from pipeline.segmenters.sam.attention import use_fused_attention
from pipeline.segmenters.sam.checkpoints import OTHERWISE, VARIABLE, find_checkpoint
from pipeline.segmenters.sam.decoding import SamDecoder
from pipeline.torchvision_shim import ensure_torchvision

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
            None or empty looks in the usual places (checkpoints says which).
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
