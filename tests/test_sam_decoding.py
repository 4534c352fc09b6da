import numpy as np
import pytest
import torch
from tiny_models import segment_anything, tiny_sam

from pipeline.segmenters.sam_decoding import (
    BOX_FIRST,
    BOX_SECOND,
    PAD,
    POINT,
    SamDecoder,
    decode_prompts,
    prompt_tokens,
    resized_size,
)


@pytest.fixture(scope="module")
def sam():
    return tiny_sam()


def test_prompt_tokens_are_those_of_the_prompt_encoder(sam):
    points, boxes = torch.rand(5, 1, 2) * 128, torch.rand(5, 4) * 128
    labels = torch.ones(5, 1, dtype=torch.int)
    both, _ = sam.prompt_encoder(points=(points, labels), boxes=boxes, masks=None)
    alone, _ = sam.prompt_encoder(points=(points, labels), boxes=None, masks=None)
    corners = torch.cat([points, boxes.view(-1, 2, 2)], dim=1) + 0.5
    ours = prompt_tokens(
        sam.prompt_encoder, corners, torch.tensor([[POINT, BOX_FIRST, BOX_SECOND]]).expand(5, -1)
    )
    torch.testing.assert_close(ours, both, atol=1e-5, rtol=0)
    padded = torch.cat([points + 0.5, torch.rand(5, 1, 2)], dim=1)
    ours = prompt_tokens(sam.prompt_encoder, padded, torch.tensor([[POINT, PAD]]).expand(5, -1))
    torch.testing.assert_close(ours, alone, atol=1e-5, rtol=0)


def predictor_of(sam, decoder, frame):
    """SamPredictor with our resized picture, since its own resize goes through 8-bit PIL."""
    predictor = segment_anything.SamPredictor(sam)
    pixels = frame[None].permute(0, 3, 1, 2).float()
    size = resized_size(frame.shape[:2], decoder.side)
    pixels = torch.nn.functional.interpolate(
        pixels, size, mode="bilinear", align_corners=False, antialias=True
    )
    predictor.set_torch_image(pixels, tuple(frame.shape[:2]))
    return predictor


@torch.inference_mode()
def test_decoding_prompts_of_mixed_frames_equals_sam_predictor_frame_by_frame(sam):
    decoder = SamDecoder(sam)
    frames = torch.randint(0, 256, (3, 96, 128, 3), dtype=torch.uint8)
    frame_index = torch.tensor([2, 0, 0, 1, 2, 0, 1])
    low, high = torch.rand(7, 2) * 0.4, 0.5 + torch.rand(7, 2) * 0.5
    boxes, points = torch.cat([low, high], dim=1), low + torch.rand(7, 2) * 0.1
    ours = decoder.decode(decoder.embed(frames), frame_index, boxes, points)
    scale = torch.tensor([128.0, 96.0])
    for p, frame in enumerate(frame_index):
        predictor = predictor_of(sam, decoder, frames[frame])
        # SAM counts pixel centres as whole numbers; ours are shares from the frame's edge.
        point = (points[p] * scale - 0.5).numpy()[None]
        box = (boxes[p].view(2, 2) * scale - 0.5).flatten().numpy()
        _, quality, logits = predictor.predict(point, np.ones(1), box, multimask_output=False)
        np.testing.assert_allclose(ours.logits[p, :1], logits, atol=2e-5)
        np.testing.assert_allclose(ours.quality[p, :1], quality, atol=2e-5)
        _, quality, logits = predictor.predict(point, np.ones(1), multimask_output=True)
        np.testing.assert_allclose(ours.logits[p, 1:], logits, atol=2e-5)
        np.testing.assert_allclose(ours.quality[p, 1:], quality, atol=2e-5)


@torch.inference_mode()
def test_decoding_matches_the_mask_decoder_of_one_frame(sam):
    embeddings, tokens = torch.randn(1, 32, 8, 8), torch.randn(4, 3, 32)
    dense = sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1).expand(4, -1, 8, 8)
    logits, quality = sam.mask_decoder.predict_masks(
        embeddings, sam.prompt_encoder.get_dense_pe(), tokens, dense
    )
    ours = decode_prompts(sam, embeddings, torch.zeros(4, dtype=torch.long), tokens)
    torch.testing.assert_close(ours[0], logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours[1], quality, atol=1e-5, rtol=1e-5)


def test_embedding_does_not_depend_on_the_launch_size(sam):
    frames = torch.randint(0, 256, (3, 60, 90, 3), dtype=torch.uint8)
    one, three = (SamDecoder(sam, frames_per_launch=n).embed(frames) for n in (1, 3))
    torch.testing.assert_close(one.embeddings, three.embeddings, atol=1e-5, rtol=1e-4)
    assert one.extent == (85 / 4, 128 / 4)


@pytest.mark.parametrize("size", [(240, 320), (320, 240), (427, 640), (1, 3)])
def test_resized_size_is_that_of_segment_anything(size):
    official = segment_anything.predictor.ResizeLongestSide.get_preprocess_shape
    assert resized_size(size, 1024) == official(*size, 1024)
