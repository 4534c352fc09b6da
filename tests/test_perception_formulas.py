"""Each perception, its encoder and its decoder against the formulas written out in float64."""

import math

import pytest
import torch
from written_out import (
    awake,
    convolved,
    decoded,
    encoded,
    grid_encodings,
    mapped,
    pooled,
    twice,
)

from i2st_model.config import preset
from i2st_model.instance_encoder import InstanceEncoder
from i2st_model.mask_decoder import MaskDecoder
from i2st_model.perception import build_perception

B, SIDE, D, FLOOR = 2, 3, 8, 0.1
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # positions are kept in float32
POOLED = pytest.mark.parametrize("masks", ["union", "each"])


def tiny(**settings):
    defaults = {"token_dim": 12, "grid": SIDE, "dim": D, "heads": 2, "num_instances": 2}
    return preset("i2st", **{**defaults, "mask_width": 4, "mask_floor": FLOOR, **settings})


def perceived(**settings):
    """A perception, (B, L, D) tokens, what it makes of them, and the tokens with positions."""
    perception = awake(build_perception(tiny(**settings)))
    tokens = torch.randn(B, SIDE**2, D).double()
    with torch.no_grad():
        found = perception(tokens, with_masks=True)
    return perception, tokens, found, tokens + grid_encodings(SIDE, D)


@torch.no_grad()
def test_instance_encoder_matches_its_layers_written_out():
    encoder = awake(InstanceEncoder(tiny()))
    memory = torch.randn(B, SIDE**2, D).double()
    for frame, found in zip(memory, encoder(memory), strict=True):
        torch.testing.assert_close(found, encoded(encoder, frame))


@torch.no_grad()
def test_mask_decoder_makes_the_mask_of_each_instance_cell_by_cell():
    decoder = awake(MaskDecoder(tiny()))
    instances, memory = torch.randn(B, 2, D).double(), torch.randn(B, SIDE**2, D).double()
    for b, found in enumerate(decoder(instances, memory)):
        torch.testing.assert_close(found, decoded(decoder, instances[b], memory[b]))


@torch.no_grad()
def test_queries_are_read_from_tokens_with_positions_and_so_are_their_masks():
    perception, _, found, memory = perceived(instances="queries")
    for b in range(B):
        instances = encoded(perception.encoder, memory[b])
        torch.testing.assert_close(found.instances[b], instances, **CLOSE)
        masks = decoded(perception.decoder, instances, memory[b])
        torch.testing.assert_close(found.mask_logits[b], masks.exp().sum(dim=0).log(), **CLOSE)


@POOLED
@torch.no_grad()
def test_masked_pool_matches_its_formula(masks):
    perception, tokens, found, memory = perceived(pooled_masks=masks)
    for b in range(B):
        each = decoded(perception.decoder, encoded(perception.encoder, memory[b]), memory[b])
        union = each.exp().sum(dim=0).log()
        torch.testing.assert_close(found.mask_logits[b], union, **CLOSE)
        chosen = union.unsqueeze(0) if masks == "union" else each
        assert len(found.instances[b]) == len(chosen)
        for instance, mask in zip(found.instances[b], chosen, strict=True):
            shares = [
                torch.sigmoid(mask[4 * y : 4 * y + 4, 4 * x : 4 * x + 4]).mean()
                for y in range(SIDE)
                for x in range(SIDE)
            ]
            torch.testing.assert_close(instance, pooled(tokens[b], shares, FLOOR), **CLOSE)


@POOLED
@torch.no_grad()
def test_masked_attention_matches_its_formula(masks):
    perception, tokens, found, memory = perceived(instances="masked_attention", pooled_masks=masks)
    for b in range(B):
        asked = mapped(perception.query, encoded(perception.encoder, memory[b]))
        keys = mapped(perception.key, memory[b])
        each = torch.stack(
            [torch.stack([one @ key / math.sqrt(D) for key in keys]) for one in asked]
        )
        each = each + perception.bias
        union = each.exp().sum(dim=0).log()
        torch.testing.assert_close(found.mask_logits[b].flatten(), union, **CLOSE)
        chosen = union.unsqueeze(0) if masks == "union" else each
        assert len(found.instances[b]) == len(chosen)
        for instance, logits in zip(found.instances[b], chosen, strict=True):
            expected = pooled(tokens[b], torch.sigmoid(logits), FLOOR)
            torch.testing.assert_close(instance, expected, **CLOSE)


@torch.no_grad()
def test_autodecoder_matches_its_formula():
    perception, tokens, found, _ = perceived(instances="autodecoder", mask_width=16)
    decoder = perception.decoder
    for b in range(B):
        image = tokens[b].T.unflatten(1, (SIDE, SIDE))
        hidden = convolved(perception.reduce, image)
        cells = [
            perception.expand.weight[:, :, 0, 0] @ hidden[:, y, x] + perception.expand.bias
            for y in range(SIDE)
            for x in range(SIDE)
        ]
        instance = sum(cell.clamp_min(0) for cell in cells) / len(cells)
        torch.testing.assert_close(found.instances[b, 0], instance)
        for conv, norm in (
            (decoder.first, decoder.first_norm),
            (decoder.second, decoder.second_norm),
        ):
            hidden = convolved(conv, twice(hidden))
            hidden = (hidden - hidden.mean()) / (hidden.var(correction=0) + norm.eps).sqrt()
            hidden = hidden * norm.weight[:, None, None] + norm.bias[:, None, None]
            hidden = hidden.clamp_min(0)
        mask = torch.einsum("c,cyx->yx", decoder.last.weight[0, :, 0, 0], hidden)
        torch.testing.assert_close(found.mask_logits[b], mask + decoder.last.bias)


@pytest.mark.parametrize("kind", ["masked_pool", "masked_attention", "queries", "autodecoder"])
@pytest.mark.parametrize("number", [1, 16])
def test_masks_begin_with_a_minority_of_the_frame(kind, number):
    shares = []
    for _ in range(8):
        perception = build_perception(tiny(instances=kind, num_instances=number, dim=32))
        logits = perception(torch.randn(8, SIDE**2, 32), with_masks=True).mask_logits
        shares.append(logits.sigmoid().mean().item())
    assert 0.2 < sum(shares) / len(shares) < 0.4
