"""Attention against written-out heads, the skipped grid, scopes and positions."""

import math

import pytest
import torch

from i2st_model.attention import (
    GlobalFusion,
    JointAttention,
    SpatialAttention,
    TemporalAttention,
)
from i2st_model.config import preset
from i2st_model.layers import (
    KEPT_POSITIONS,
    Attention,
    SinePositions,
    grid_positions,
    sine_positions,
)


def tiny(**settings):
    defaults = {"token_dim": 12, "grid": 3, "dim": 8, "heads": 2, "dropout": 0.0}
    return preset("i2st", **{**defaults, **settings})


def wake(module):
    """Give zero-initialised outputs values, as training would."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return module.double().eval()


@torch.no_grad()
def loop_attention(module, query, memory, allowed=None):
    heads, dim = module.heads, memory.shape[-1]
    size = dim // heads
    result = torch.empty(len(memory), query.shape[1], dim, dtype=memory.dtype)
    for b in range(len(memory)):
        wanted = module.query(query[b % len(query)])
        keys, values = module.key(memory[b]), module.value(memory[b])
        for q in range(query.shape[1]):
            parts = []
            for h in range(heads):
                part = slice(h * size, (h + 1) * size)
                scores = [
                    float(wanted[q, part] @ keys[s, part]) / math.sqrt(size)
                    if allowed is None or allowed[q, s]
                    else -math.inf
                    for s in range(memory.shape[1])
                ]
                weights = torch.tensor(scores, dtype=memory.dtype).softmax(0)
                parts.append(weights @ values[:, part])
            result[b, q] = torch.cat(parts)
    return module.output(result)


@pytest.mark.parametrize("order", ["_plain", "_folded"])
def test_attention_matches_a_loop_over_heads_in_both_orders(order):
    module = wake(Attention(8, 2))
    query, memory = torch.randn(3, 2, 8).double(), torch.randn(3, 5, 8).double()
    allowed = torch.tensor([[True, False, True, True, False], [False, False, False, False, True]])
    for mask in (None, allowed):
        found = module.output(getattr(module, order)(query, memory, mask))
        torch.testing.assert_close(found, loop_attention(module, query, memory, mask))


@pytest.mark.parametrize("num_memory", [1, 3, 40])
def test_attention_serves_one_row_of_queries_to_every_memory(num_memory):
    module = wake(Attention(8, 2))
    query, memory = torch.randn(1, 3, 8).double(), torch.randn(4, num_memory, 8).double()
    torch.testing.assert_close(module(query, memory), loop_attention(module, query, memory))


@pytest.mark.parametrize("settings", [{}, {"attention_scope": "cross"}, {"positions": "none"}])
def test_spatial_attention_skips_the_grid_exactly(settings):
    module = wake(SpatialAttention(tiny(**settings)))
    frame, grid = torch.randn(4, 3, 8).double(), torch.randn(4, 9, 8).double()
    full, updated = module(frame, grid, update_grid=True)
    skipped, same = module(frame, grid, update_grid=False)
    torch.testing.assert_close(skipped, full, atol=1e-12, rtol=1e-12)
    assert same is grid
    assert (updated - grid).abs().max() > 0.01


@pytest.mark.parametrize("pairs", [0, 1, 2, 3])
@pytest.mark.parametrize("order", ["spatial_first", "temporal_first"])
def test_joint_attention_is_the_identity_at_step_0(pairs, order):
    config = tiny(spatial_temporal_pairs=pairs, attention_order=order)
    frames, grid = torch.randn(2, 4, 3, 8), torch.randn(2, 4, 9, 8)
    assert torch.equal(JointAttention(config)(frames, grid), frames)


def test_joint_attention_runs_its_pairs_in_the_configured_order():
    config = tiny(attention_order="temporal_first")
    module = wake(JointAttention(config))
    frames, grid = torch.randn(2, 4, 3, 8).double(), torch.randn(2, 4, 9, 8).double()
    tokens = module.temporal[0](frames).flatten(0, 1)
    expected, _ = module.spatial[0](tokens, grid.flatten(0, 1))
    torch.testing.assert_close(module(frames, grid), expected.unflatten(0, (2, 4)))


@pytest.mark.parametrize("part", ["spatial", "temporal"])
def test_one_part_of_the_pair_runs_alone_as_an_ablation(part):
    module = wake(JointAttention(tiny(attention_parts=part)))
    frames, grid = torch.randn(2, 4, 3, 8).double(), torch.randn(2, 4, 9, 8).double()
    if part == "spatial":
        tokens, _ = module.spatial[0](frames.flatten(0, 1), grid.flatten(0, 1))
        expected = tokens.unflatten(0, (2, 4))
    else:
        expected = module.temporal[0](frames)
    torch.testing.assert_close(module(frames, grid), expected)
    assert len(module.spatial) + len(module.temporal) == 1


def test_spatial_attention_keeps_frames_apart_and_temporal_attention_joins_them():
    config = tiny()
    spatial, temporal = wake(SpatialAttention(config)), wake(TemporalAttention(config))
    frames, grid = torch.randn(1, 4, 3, 8).double(), torch.randn(4, 9, 8).double()
    changed = frames.clone()
    changed[:, 2] = torch.randn(3, 8)
    moved, _ = spatial(changed[0], grid)
    before, _ = spatial(frames[0], grid)
    assert (moved - before).abs().amax(dim=(1, 2)).gt(1e-6).tolist() == [False, False, True, False]
    moved = (temporal(changed) - temporal(frames)).abs().amax(dim=(0, 2, 3))
    assert (moved > 1e-6).all()


def test_temporal_attention_knows_the_order_of_frames_only_with_positions():
    frames = torch.randn(1, 4, 3, 8).double()
    for positions, differs in (("sine", True), ("none", False)):
        module = wake(TemporalAttention(tiny(positions=positions)))
        moved = module(frames.flip(1)).flip(1) - module(frames)
        assert (moved.abs().max().item() > 1e-6) is differs


def test_cross_scope_lets_the_image_token_see_instances_only():
    module = wake(SpatialAttention(tiny(attention_scope="cross")))
    frame, grid = torch.randn(1, 3, 8).double(), torch.randn(1, 9, 8).double()
    before, _ = module(frame, grid)
    after, _ = module(frame, grid + torch.randn_like(grid))
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert (after[:, 1:] - before[:, 1:]).abs().max() > 1e-3
    joint = wake(SpatialAttention(tiny()))
    moved = joint(frame, grid + torch.randn_like(grid))[0] - joint(frame, grid)[0]
    assert moved[:, 0].abs().max() > 1e-3


def test_global_fusion_starts_as_the_mean_local_descriptor():
    module = GlobalFusion(tiny(global_matching="compound", compound_tokens=3))
    local, frames = torch.randn(2, 4, 8), torch.randn(2, 4, 3, 8)
    expected = local.mean(dim=1, keepdim=True).expand(2, 3, 8)
    assert torch.equal(module(local, frames), expected)


def test_sine_positions_match_the_formula():
    found = sine_positions(5, 6)
    for place in range(5):
        for k in range(3):
            angle = place / 10_000 ** (k / 3)
            assert found[place, k].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert found[place, 3 + k].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_kept_positions_are_those_made_for_each_length():
    kept = SinePositions(10)
    for length in (1, 3, 8, 17, KEPT_POSITIONS, KEPT_POSITIONS + 5):
        assert torch.equal(kept(length), sine_positions(length, 10))
    assert torch.equal(kept.double()(70), sine_positions(70, 10).double())
    assert not kept.state_dict()


def test_temporal_attention_makes_positions_once(monkeypatch):
    module = TemporalAttention(tiny())
    monkeypatch.delattr("i2st_model.layers.sine_positions")
    assert module(torch.randn(2, 8, 3, 8)).shape == (2, 8, 3, 8)


def test_grid_positions_are_distinct_and_row_major():
    found = grid_positions(tiny()).view(3, 3, 8)
    torch.testing.assert_close(found[2, 1, :4], sine_positions(3, 4)[2])
    torch.testing.assert_close(found[2, 1, 4:], sine_positions(3, 4)[1])
    assert len(found.view(9, 8).unique(dim=0)) == 9
    assert grid_positions(tiny(positions="none")).abs().max() == 0


def test_attention_that_starts_at_random_is_no_identity():
    config = tiny(attention_start="random")
    frames, grid = torch.randn(2, 4, 3, 8), torch.randn(2, 4, 9, 8)
    assert (JointAttention(config)(frames, grid) - frames).abs().max() > 0.01
    local = torch.randn(2, 4, 8)
    moved = GlobalFusion(config)(local, frames) - local.mean(dim=1, keepdim=True)
    assert moved.abs().max() > 0.01


def test_cross_scope_over_time_lets_images_see_instances_of_all_frames_only():
    module = wake(TemporalAttention(tiny(attention_scope="cross")))
    frames = torch.randn(1, 4, 3, 8).double()
    moved = frames.clone()
    moved[:, 2, 0] += torch.randn(8)  # an image token
    change = (module(moved) - module(frames)).abs().amax(dim=3)[0] > 1e-9
    assert change[:, 0].tolist() == [False, False, True, False]  # itself, by its residual
    assert change[:, 1:].all()


def test_a_second_pair_reads_the_grid_as_the_first_left_it():
    module = wake(JointAttention(tiny(spatial_temporal_pairs=2)))
    frames, grid = torch.randn(1, 4, 3, 8).double(), torch.randn(1, 4, 9, 8).double()
    expected, cells = frames, grid.flatten(0, 1)
    for spatial, temporal in zip(module.spatial, module.temporal, strict=True):
        tokens, cells = spatial(expected.flatten(0, 1), cells)
        expected = temporal(tokens.unflatten(0, (1, 4)))
    torch.testing.assert_close(module(frames, grid), expected)
