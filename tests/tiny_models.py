"""Small SAM and CLIP of the official packages with random weights, for tests without weights."""

import torch

from pipeline.torchvision_shim import ensure_torchvision

ensure_torchvision()

import open_clip  # noqa: E402
import segment_anything  # noqa: E402
from segment_anything.modeling import (  # noqa: E402
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

__all__ = ["open_clip", "segment_anything", "tiny_clip", "tiny_clip_config", "tiny_sam"]


def tiny_sam(side=128, width=48):
    torch.manual_seed(0)
    grid = side // 16
    sam = Sam(
        image_encoder=ImageEncoderViT(
            img_size=side,
            embed_dim=width,
            depth=2,
            num_heads=4,
            out_chans=32,
            use_rel_pos=True,
            window_size=4,
            global_attn_indexes=(1,),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=32,
            image_embedding_size=(grid, grid),
            input_image_size=(side, side),
            mask_in_chans=4,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=32,
            transformer=TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=4),
            iou_head_hidden_dim=32,
        ),
        pixel_mean=[123.675, 116.28, 103.53],
        pixel_std=[58.395, 57.12, 57.375],
    )
    # Fresh position tables are zeros, which would hide an axis mixed up.
    for name, parameter in sam.named_parameters():
        if "rel_pos" in name or "pos_embed" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return sam.eval().requires_grad_(False)


def tiny_clip_config(side=64, width=64):
    return {
        "embed_dim": 32,
        "vision_cfg": {
            "image_size": side,
            "patch_size": 16,
            "width": width,
            "layers": 3,
            "head_width": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
        "quick_gelu": True,
    }


def tiny_clip(side=64, width=64):
    torch.manual_seed(0)
    return open_clip.CLIP(**tiny_clip_config(side, width)).eval().requires_grad_(False)
