import numpy as np
import pytest
import torch
from host_waits import NoHostWaits
from tiny_models import segment_anything, tiny_sam

from pipeline.segmenters.sam import decoding
from pipeline.segmenters.sam.attention import use_fused_attention
from pipeline.segmenters.sam.decoding import (
    BOX_FIRST,
    BOX_SECOND,
    PAD,
    POINT,
    SamDecoder,
    prompt_tokens,
    resized_size,
)

LAUNCHES = {"by_device": {}, "of_many": {"frames_per_launch": 2, "prompts_per_launch": 4}}


@pytest.fixture(scope="module")
def sam():
    return tiny_sam()


@pytest.fixture(params=LAUNCHES.values(), ids=LAUNCHES)
def decoder(sam, request):
    return SamDecoder(sam, **request.param)


def prompts(count, seed=0):
    """Boxes, and a point in each, as shares of the frame."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=generator) * 0.4
    high = 0.5 + torch.rand(count, 2, generator=generator) * 0.5
    return torch.cat([low, high], dim=1), low + torch.rand(count, 2, generator=generator) * 0.1


@pytest.mark.parametrize("labels", [(POINT, BOX_FIRST, BOX_SECOND), (BOX_FIRST, BOX_SECOND)])
def test_tokens_of_boxes_are_those_of_the_prompt_encoder(sam, labels):
    points, boxes = torch.rand(5, 1, 2) * 128, torch.rand(5, 4) * 128
    given = (points, torch.ones(5, 1, dtype=torch.int)) if POINT in labels else None
    official, _ = sam.prompt_encoder(points=given, boxes=boxes, masks=None)
    places = boxes.view(-1, 2, 2)
    places = torch.cat([points, places], dim=1) if POINT in labels else places
    ours = prompt_tokens(sam.prompt_encoder, places + 0.5, labels)
    torch.testing.assert_close(ours, official, atol=1e-5, rtol=0)


def test_tokens_of_points_are_those_of_the_prompt_encoder(sam):
    points = torch.rand(5, 1, 2) * 128
    given = (points, torch.ones(5, 1, dtype=torch.int))
    official, _ = sam.prompt_encoder(points=given, boxes=None, masks=None)
    ours = prompt_tokens(sam.prompt_encoder, points + 0.5, (POINT, PAD))
    torch.testing.assert_close(ours, official, atol=1e-5, rtol=0)


def predictor_of(sam, frame):
    """SamPredictor with our resized picture, since its own resize goes through 8-bit PIL."""
    predictor = segment_anything.SamPredictor(sam)
    pixels = frame[None].permute(0, 3, 1, 2).float()
    size = resized_size(frame.shape[:2], sam.image_encoder.img_size)
    pixels = torch.nn.functional.interpolate(
        pixels, size, mode="bilinear", align_corners=False, antialias=True
    )
    # Prompts are then given in pixels of the resized picture, without rounding in between.
    predictor.set_torch_image(pixels, size)
    return predictor


def official_answers(sam, frame, box, point):
    """Masks and qualities of SamPredictor: box and point, box, point."""
    predictor = predictor_of(sam, frame)
    height, width = resized_size(frame.shape[:2], 128)
    scale = torch.tensor([float(width), float(height)])
    # SAM counts pixel centres as whole numbers; ours are shares from the frame's edge.
    point = (point * scale - 0.5).numpy()[None]
    box = (box.view(2, 2) * scale - 0.5).flatten().numpy()
    one = np.ones(1)
    answers = [
        predictor.predict(point, one, box, multimask_output=False),
        predictor.predict(box=box, multimask_output=False),
        predictor.predict(point, one, multimask_output=True),
    ]
    return [(logits, quality) for _, quality, logits in answers]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("size", "shown"),
    # Cells of 16 pixels that the frame fills at least in part, 4 x 4 mask cells each.
    [((96, 128), (24, 32)), ((60, 90), (24, 32)), ((90, 40), (32, 16))],
)
def test_decoding_prompts_of_mixed_frames_equals_sam_predictor_frame_by_frame(
    sam, decoder, size, shown
):
    frames = torch.randint(0, 256, (3, *size, 3), dtype=torch.uint8)
    frame_index = torch.tensor([2, 0, 0, 1, 2, 0, 1])
    boxes, points = prompts(7)
    embedded = decoder.embed(frames)
    ours = [
        decoder.decode(embedded, frame_index, boxes, points),
        decoder.decode_boxes(embedded, frame_index, boxes),
        decoder.decode_points(embedded, frame_index, points),
    ]
    assert [part.logits.shape for part in ours] == [(7, n, 32, 32) for n in (4, 1, 3)]
    for p, frame in enumerate(frame_index):
        both, box, point = official_answers(sam, frames[frame], boxes[p], points[p])
        for part, expected in zip(
            (*ours, ours[0]), ([both, point], [box], [point], [both, point]), strict=True
        ):
            logits, quality = (np.concatenate(values) for values in zip(*expected, strict=True))
            # What SAM says of the padding is not kept.
            logits[:, shown[0] :], logits[:, :, shown[1] :] = 0, 0
            np.testing.assert_allclose(part.logits[p], logits, atol=1e-5)
            np.testing.assert_allclose(part.quality[p], quality, atol=1e-5)


@torch.inference_mode()
def test_a_prompts_masks_do_not_depend_on_company_order_or_number(sam, decoder):
    frames = torch.randint(0, 256, (5, 60, 90, 3), dtype=torch.uint8)
    frame_index = torch.tensor([4, 0, 0, 3, 2, 0, 1, 1, 4])
    boxes, points = prompts(9)
    embedded = decoder.embed(frames)
    together = decoder.decode(embedded, frame_index, boxes, points)
    for order in (torch.arange(8, -1, -1), torch.tensor([6]), torch.tensor([1, 8, 3])):
        needed, index = frame_index[order].unique(return_inverse=True)
        alone = decoder.embed(frames[needed])
        assert torch.equal(alone.embeddings, embedded.embeddings[needed])
        ours = decoder.decode(alone, index, boxes[order], points[order])
        assert torch.equal(ours.logits, together.logits[order])
        assert torch.equal(ours.quality, together.quality[order])


@torch.inference_mode()
def test_a_launch_of_many_makes_no_gpu_wait(sam):
    decoder = SamDecoder(sam, **LAUNCHES["of_many"])
    frames = torch.randint(0, 256, (3, 60, 90, 3), dtype=torch.uint8)
    frame_index = torch.tensor([2, 0, 0, 1, 2])
    boxes, points = prompts(5)
    calls = (
        lambda one: one.decode(embedded, frame_index, boxes, points),
        lambda one: one.decode_boxes(embedded, frame_index, boxes),
        lambda one: one.decode_points(embedded, frame_index, points),
    )
    with NoHostWaits() as looked_at:
        embedded = decoder.embed(frames)
        assert looked_at.seen
        found = []
        for call in calls:
            looked_at.seen.clear()
            found.append(call(decoder))
            assert looked_at.seen
    for call, ours in zip(calls, found, strict=True):
        alone = call(SamDecoder(sam, frames_per_launch=1, prompts_per_launch=1))
        assert ours.logits.any()
        torch.testing.assert_close(ours.logits, alone.logits, atol=1e-5, rtol=1e-4)


def test_the_check_for_gpu_waits_can_fail():
    with NoHostWaits(), pytest.raises(AssertionError, match="_local_scalar_dense waits for the GP"):
        torch.ones(1).item()
    with NoHostWaits(), pytest.raises(AssertionError, match="tolist waits for the GPU"):
        torch.ones(1).tolist()
    with NoHostWaits(), pytest.raises(AssertionError, match="under a boolean mask waits for the G"):
        torch.ones(2)[torch.ones(2, dtype=torch.bool)]


def test_no_prompts_have_no_masks(decoder):
    embedded = decoder.embed(torch.zeros(1, 60, 90, 3, dtype=torch.uint8))
    nothing = torch.zeros(0, dtype=torch.int64)
    ours = decoder.decode(embedded, nothing, torch.zeros(0, 4), torch.zeros(0, 2))
    assert ours.logits.shape == (0, 4, 32, 32)
    assert ours.quality.shape == (0, 4)


def test_embedding_is_that_of_the_encoder_whatever_the_launch(sam):
    frames = torch.randint(0, 256, (3, 60, 90, 3), dtype=torch.uint8)
    one, two = (SamDecoder(sam, frames_per_launch=n).embed(frames) for n in (1, 2))
    torch.testing.assert_close(one.embeddings, two.embeddings, atol=1e-5, rtol=1e-4)
    assert one.extent == (85 / 4, 128 / 4)
    expected = predictor_of(sam, frames[1]).get_image_embedding()
    torch.testing.assert_close(one.embeddings[1:2], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fused", [False, True])
def test_the_encoder_runs_in_bfloat16_as_on_a_gpu(fused, monkeypatch):
    sam = tiny_sam()
    frames = torch.randint(0, 256, (2, 60, 90, 3), dtype=torch.uint8)
    expected = SamDecoder(sam).embed(frames).embeddings
    if fused:
        use_fused_attention(sam)
    monkeypatch.setattr(decoding, "autocast", lambda device: torch.autocast("cpu"))
    ours = SamDecoder(sam).embed(frames).embeddings
    assert ours.dtype == torch.float32
    assert not torch.equal(ours, expected)
    assert (ours - expected).abs().mean() < 0.02 * expected.abs().mean()


@pytest.mark.slow
def test_the_compiled_encoder_keeps_its_numbers():
    sam = tiny_sam()
    frames = torch.randint(0, 256, (2, 60, 90, 3), dtype=torch.uint8)
    expected = SamDecoder(sam).embed(frames).embeddings
    use_fused_attention(sam)
    ours = SamDecoder(sam, compiled=True).embed(frames).embeddings
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(240, 320), (320, 239), (239, 320), (1, 3)])
def test_resized_size_is_that_of_segment_anything(size):
    official = segment_anything.predictor.ResizeLongestSide.get_preprocess_shape
    assert resized_size(size, 1024) == official(*size, 1024)
