import copy

import pytest
import torch
from tiny_models import tiny_sam

from pipeline.segmenters.sam.attention import FusedAttention, relative_terms, use_fused_attention


def official_attention(*, width, heads, side, seed=0):
    from segment_anything.modeling.image_encoder import Attention

    torch.manual_seed(seed)
    attention = Attention(width, heads, use_rel_pos=True, input_size=(side, side))
    for table in (attention.rel_pos_h, attention.rel_pos_w):
        torch.nn.init.normal_(table, std=0.5)
    return attention.eval().requires_grad_(False)


@pytest.mark.parametrize("rows_per_call", [None, 1, 3])
@pytest.mark.parametrize("side", [14, 10])
def test_attention_is_that_of_segment_anything(side, rows_per_call):
    # Trained with 14 cells a side: 10 resizes its tables. These are ViT-B's windows.
    official = official_attention(width=768, heads=12, side=14)
    cells = torch.randn(2, side, side, 768)
    ours = FusedAttention(official, side, rows_per_call=rows_per_call)
    torch.testing.assert_close(ours(cells), official(cells), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_attention_is_that_of_segment_anything_on_the_whole_picture_of_vit_b():
    official = official_attention(width=768, heads=12, side=64)
    cells = torch.randn(1, 64, 64, 768)
    ours = FusedAttention(official, 64, rows_per_call=1)
    torch.testing.assert_close(ours(cells), official(cells), atol=1e-5, rtol=0)


def test_terms_name_the_distance_from_key_to_query():
    table = torch.arange(-3.0, 4.0)[:, None]
    expected = [[[query - key] for key in range(4)] for query in range(4)]
    torch.testing.assert_close(relative_terms(table, 4), torch.tensor(expected).float())


@torch.inference_mode()
def test_the_whole_encoder_keeps_its_numbers():
    sam = tiny_sam()
    fused = copy.deepcopy(sam)
    use_fused_attention(fused)
    pixels = torch.randn(2, 3, 128, 128)
    expected = sam.image_encoder(pixels)
    torch.testing.assert_close(fused.image_encoder(pixels), expected, atol=1e-5, rtol=1e-5)
    assert all(isinstance(block.attn, FusedAttention) for block in fused.image_encoder.blocks)
