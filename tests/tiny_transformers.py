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


def write_tiny_grounding_dino(folder: Path) -> Path:
    """Twenty boxes a frame. The model knows BERT's ids of [CLS], [SEP], "." and "?" by heart."""
    torch.manual_seed(0)
    config = transformers.GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "embed_dim": 16,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 2, 4, 8],
            "window_size": 4,
            "out_indices": [2, 3, 4],
        },
        text_config={
            "model_type": "bert",
            "vocab_size": 1100,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
        },
        d_model=32,
        num_queries=20,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
    )
    model = transformers.GroundingDinoForObjectDetection(config)
    _tell_apart(model)
    model.save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def bert_tokenizer() -> transformers.BertTokenizer:
    words = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    words |= {".": 1012, "?": 1029, "person": 110, "hockey": 111, "stick": 112, "##s": 113}
    words |= {"ball": 114, "red": 115, "hat": 116, "in": 117, "dog": 118}
    filled = dict(words)
    taken = set(words.values())
    filled |= {f"[unused{i}]": i for i in range(1100) if i not in taken}
    return transformers.BertTokenizer(vocab=dict(sorted(filled.items(), key=lambda item: item[1])))
