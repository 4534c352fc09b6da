import pytest
import torch
from tiny_models import segment_anything, tiny_sam

from pipeline.segmenters.sam.mask_decoder import FoldedDecoder


class DecoderOfVitB:
    """The prompt encoder and mask decoder that all SAMs share, without an image encoder."""

    def __init__(self):
        modeling = segment_anything.modeling
        torch.manual_seed(0)
        self.prompt_encoder = modeling.PromptEncoder(256, (64, 64), (1024, 1024), 16)
        transformer = modeling.TwoWayTransformer(2, 256, 8, 2048)
        self.mask_decoder = modeling.MaskDecoder(transformer_dim=256, transformer=transformer)
        for part in (self.prompt_encoder, self.mask_decoder):
            part.eval().requires_grad_(False)


@torch.inference_mode()
@pytest.mark.parametrize("build", [tiny_sam, DecoderOfVitB])
@pytest.mark.parametrize("num_tokens", [2, 3])
def test_masks_are_those_of_segment_anything(build, num_tokens):
    sam = build()
    position = sam.prompt_encoder.get_dense_pe()
    channels, side = position.shape[1], position.shape[2]
    embedding = torch.randn(1, channels, side, side)
    tokens = torch.randn(2, num_tokens, channels)
    dense = sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    logits, quality = sam.mask_decoder.predict_masks(
        embedding, position, tokens, dense.expand(2, -1, side, side)
    )
    decoder = FoldedDecoder(sam)
    cells = decoder.frame_cells(embedding).of(torch.zeros(2, dtype=torch.long))
    for masks in (slice(0, 1), slice(1, 4), slice(0, 4)):
        ours = decoder.decode(cells, tokens, masks, (side, side))
        torch.testing.assert_close(ours[0], logits[:, masks], atol=1e-5, rtol=0)
        torch.testing.assert_close(ours[1], quality[:, masks], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_masks_of_a_part_are_those_of_the_whole_and_empty_beyond():
    sam = tiny_sam()
    decoder = FoldedDecoder(sam)
    cells = decoder.frame_cells(torch.randn(1, 32, 8, 8))
    tokens = torch.randn(1, 3, 32)
    whole, _ = decoder.decode(cells, tokens, slice(0, 4), (8, 8))
    part, _ = decoder.decode(cells, tokens, slice(0, 4), (5, 7))
    torch.testing.assert_close(part[..., :20, :28], whole[..., :20, :28], atol=1e-5, rtol=0)
    assert not part[..., 20:, :].any()
    assert not part[..., 28:].any()


@torch.inference_mode()
def test_every_prompt_meets_its_own_frame():
    decoder = FoldedDecoder(tiny_sam())
    embeddings, tokens = torch.randn(3, 32, 8, 8), torch.randn(4, 2, 32)
    index = torch.tensor([2, 0, 2, 1])
    ours, _ = decoder.decode(decoder.frame_cells(embeddings).of(index), tokens, slice(0, 4), (8, 8))
    for p, frame in enumerate(index):
        cells = decoder.frame_cells(embeddings[frame : frame + 1])
        alone, _ = decoder.decode(cells, tokens[p : p + 1], slice(0, 4), (8, 8))
        torch.testing.assert_close(ours[p : p + 1], alone, atol=1e-5, rtol=0)
