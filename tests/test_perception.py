"""Perception: pooling by hand-made masks, the decoder against real transposed convolutions."""

import math

import pytest
import torch
from torch.nn import functional

from i2st_model.config import preset
from i2st_model.instance_encoder import InstanceEncoder
from i2st_model.losses import mask_loss
from i2st_model.mask_decoder import MaskDecoder
from i2st_model.perception import build_perception, pool_tokens

KINDS = ["masked_pool", "masked_attention", "queries", "autodecoder"]


def tiny(**settings):
    defaults = {"token_dim": 12, "grid": 3, "dim": 8, "heads": 2, "num_instances": 2}
    return preset("i2st", **{**defaults, "mask_width": 8, "dropout": 0.0, **settings})


def test_pool_tokens_matches_a_loop_over_cells():
    tokens = torch.randn(2, 9, 8, dtype=torch.float64)
    weights = torch.rand(2, 3, 9, dtype=torch.float64)
    found = pool_tokens(tokens, weights, 0.1)
    for b in range(2):
        for i in range(3):
            raised = [0.1 + 0.9 * float(w) for w in weights[b, i]]
            expected = sum(w * t for w, t in zip(raised, tokens[b], strict=True)) / sum(raised)
            torch.testing.assert_close(found[b, i], expected)


def test_pool_tokens_takes_the_cell_under_the_mask_or_the_mean_without_one():
    tokens = torch.randn(1, 9, 8)
    weights = torch.zeros(1, 2, 9)
    weights[0, 0, 4] = 1
    found = pool_tokens(tokens, weights, 0.0001)
    torch.testing.assert_close(found[0, 0], tokens[0, 4], atol=0.01, rtol=0)
    torch.testing.assert_close(found[0, 1], tokens[0].mean(dim=0))


def test_mask_decoder_equals_two_transposed_convolutions_and_a_product():
    decoder = MaskDecoder(tiny()).double()
    instances, tokens = torch.randn(4, 2, 8).double(), torch.randn(4, 9, 8).double()
    # The second transposed convolution is made of any vectors v and kernels U with v U = vectors.
    kernel = torch.randn(8, 8, 2, 2).double()
    vectors = torch.randn(2, 8).double()
    folded = torch.einsum("nw,cwab->nabc", vectors, kernel).reshape(1, -1)
    last = decoder.vectors[-1]
    with torch.no_grad():
        last.weight.zero_()
        half = folded.view(2, -1)
        last.bias.copy_(half[0])
    image = tokens.transpose(1, 2).unflatten(2, (3, 3))
    weight = decoder.upsample.weight.view(2, 2, 8, 8).permute(3, 2, 0, 1)
    pixels = functional.conv_transpose2d(image, weight, stride=2)
    pixels = pixels + decoder.upsample.bias.view(2, 2, 8).permute(2, 0, 1).repeat(1, 3, 3)
    pixels = functional.relu(decoder.norm(pixels.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    pixel_map = functional.conv_transpose2d(pixels, kernel, stride=2)
    expected = torch.einsum("w,bwyx->byx", vectors[0], pixel_map) / math.sqrt(8) + decoder.bias
    found = decoder(instances, tokens)
    assert found.shape == (4, 2, 12, 12)
    torch.testing.assert_close(found[:, 0], expected)


def test_instance_encoder_reads_each_frame_by_itself():
    encoder = InstanceEncoder(tiny()).double().eval()
    memory = torch.randn(3, 9, 8).double()
    alone = torch.cat([encoder(memory[b : b + 1]) for b in range(3)])
    torch.testing.assert_close(encoder(memory), alone)
    assert (alone[0] - alone[1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_perception_has_the_shapes_that_the_config_promises(kind):
    config = tiny(instances=kind)
    found = build_perception(config)(torch.randn(5, 9, 8), with_masks=True)
    assert found.instances.shape == (5, config.num_instance_tokens, 8)
    assert found.mask_logits.shape == (5, config.mask_side, config.mask_side)
    assert config.mask_side == (3 if kind == "masked_attention" else 12)


@pytest.mark.parametrize("kind", ["masked_pool", "masked_attention"])
def test_perception_pools_one_embedding_per_mask_when_told_each(kind):
    config = tiny(instances=kind, pooled_masks="each")
    found = build_perception(config)(torch.randn(5, 9, 8), with_masks=False)
    assert found.instances.shape == (5, 2, 8)
    assert found.mask_logits is None
    assert (found.instances[:, 0] - found.instances[:, 1]).abs().max() > 1e-6


@pytest.mark.parametrize("kind", ["masked_pool", "masked_attention"])
def test_mask_loss_alone_moves_the_instance_embedding_onto_the_mask(kind):
    perception = build_perception(tiny(instances=kind))
    tokens = torch.randn(6, 9, 8)
    inside = torch.zeros(6, 3, 3)
    inside[:, 0, 0] = 1
    scale = perception(tokens, with_masks=True).mask_logits.shape[-1] // 3
    target = inside.repeat_interleave(scale, 1).repeat_interleave(scale, 2).unsqueeze(1)
    optimizer = torch.optim.Adam(perception.parameters(), lr=0.02)
    before = perception(tokens, with_masks=False).instances[:, 0]
    for _ in range(60):
        logits = perception(tokens, with_masks=True).mask_logits.unsqueeze(1)
        optimizer.zero_grad()
        mask_loss(logits, target, torch.ones(6, 1).bool()).backward()
        optimizer.step()
    after = perception(tokens, with_masks=False).instances[:, 0]
    corner = tokens[:, 0]
    assert (after - corner).norm() < 0.5 * (before - corner).norm()


def test_masked_pool_takes_no_gradient_from_the_embedding_to_the_mask():
    perception = build_perception(tiny())
    tokens = torch.randn(2, 9, 8, requires_grad=True)
    perception(tokens, with_masks=False).instances.sum().backward()
    assert tokens.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in perception.parameters())


def test_masked_attention_takes_gradients_both_ways():
    perception = build_perception(tiny(instances="masked_attention"))
    tokens = torch.randn(2, 9, 8, requires_grad=True)
    perception(tokens, with_masks=False).instances.square().sum().backward()
    assert perception.query.weight.grad.abs().max() > 0


@pytest.mark.parametrize("kind", ["queries", "autodecoder"])
def test_decoder_is_unused_without_masks(kind):
    perception = build_perception(tiny(instances=kind)).eval()
    tokens = torch.randn(2, 9, 8)
    before = perception(tokens, with_masks=False)
    with torch.no_grad():
        for parameter in perception.decoder.parameters():
            parameter.fill_(math.nan)
    after = perception(tokens, with_masks=False)
    assert after.mask_logits is None
    assert torch.equal(after.instances, before.instances)
    assert perception(tokens, with_masks=True).mask_logits.isnan().all()


def test_no_perception_has_no_instances():
    found = build_perception(tiny(instances="none"))(torch.randn(5, 9, 8), with_masks=True)
    assert found.instances.shape == (5, 0, 8)
    assert found.mask_logits is None


def test_mask_decoder_makes_the_same_masks_in_parts(monkeypatch):
    decoder = MaskDecoder(tiny()).double()
    instances, tokens = torch.randn(5, 2, 8).double(), torch.randn(5, 9, 8).double()
    whole = decoder(instances, tokens).detach()
    # 9 cells of 4 sub-cells and 8 channels of 8 bytes: two frames at a time, then one.
    monkeypatch.setattr("i2st_model.mask_decoder.PIXEL_BYTES", 2 * 9 * 4 * 8 * 8)
    with torch.no_grad():
        torch.testing.assert_close(decoder(instances, tokens), whole)
        torch.testing.assert_close(decoder.union(instances, tokens), whole.logsumexp(dim=1))
