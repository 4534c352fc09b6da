"""Small SAM 3 and Grounding DINO of transformers with random weights, as folders of files."""

import gzip
from pathlib import Path

import torch

from pipeline.torchvision_shim import ensure_torchvision

ensure_torchvision()

import open_clip  # noqa: E402
import transformers  # noqa: E402

SAM3_SIDE = 112


def write_tiny_sam3(folder: Path) -> Path:
    """Masks of 32 x 32; the tokenizer is CLIP's own, from the vocabulary that open_clip carries."""
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_attention_heads": 2}
    layer = {**small, "num_layers": 1, "intermediate_size": 64}
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam3_vit_model",
                **small,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "image_size": SAM3_SIDE,
                "patch_size": 14,
                "window_size": 4,
                "global_attn_indexes": [1],
                "pretrain_image_size": 56,
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            "model_type": "clip_text_model",
            **small,
            "vocab_size": 49408,
            "intermediate_size": 64,
            "projection_dim": 16,
            "num_hidden_layers": 2,
            "max_position_embeddings": 32,
            "hidden_act": "gelu",
        },
        geometry_encoder_config=layer,
        detr_encoder_config=layer,
        detr_decoder_config={**layer, "num_queries": 10},
        mask_decoder_config=small,
    )
    model = transformers.Sam3Model(config)
    _tell_apart(model)
    model.save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


def _tell_apart(model: torch.nn.Module) -> None:
    """Larger weights: from the package's own start every noun and pixel gets the same answer."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)


def clip_tokenizer() -> transformers.CLIPTokenizer:
    own = open_clip.get_tokenizer("ViT-B-16")
    path = Path(open_clip.__file__).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    vocabulary = {
        token.replace("<start_of_text>", "<|startoftext|>").replace(
            "<end_of_text>", "<|endoftext|>"
        ): index
        for token, index in own.encoder.items()
    }
    return transformers.CLIPTokenizer(
        vocab=vocabulary, merges=[tuple(line.split()) for line in merges]
    )
