"""Spatial, temporal and global attention against their formulas written out in float64."""

import math

import pytest
import torch
from written_out import attended, awake, encoding, fed, grid_encodings, normed

from i2st_model.attention import GlobalFusion, MeanFusion, SpatialAttention, TemporalAttention
from i2st_model.config import preset
from i2st_model.instance_encoder import InstanceEncoder
from i2st_model.layers import Attention, FeedForward
from i2st_model.methods import get_method
from i2st_model.methods.clips import TrainStatistics

B, T, INSTANCES, SIDE, D = 2, 4, 2, 3, 8
CLOSE = {"atol": 1e-5, "rtol": 1e-5}  # positions are kept in float32


def tiny(**settings):
    return preset("i2st", token_dim=12, grid=SIDE, dim=D, heads=2, **settings)


@torch.no_grad()
def test_feed_forward_matches_its_formula():
    part, rows = awake(FeedForward(D, 0.5)), torch.randn(5, D).double()
    torch.testing.assert_close(part(rows), fed(part, rows))


@torch.no_grad()
def test_spatial_attention_matches_its_formula():
    module = awake(SpatialAttention(tiny()))
    frame, grid = torch.randn(B, 1 + INSTANCES, D).double(), torch.randn(B, SIDE**2, D).double()
    new_frame, new_grid = module(frame, grid)
    for b in range(B):
        tokens = torch.cat([frame[b], grid[b]])
        rows = normed(module.norm, tokens)
        rows[0] += module.types[0]
        rows[1 : 1 + INSTANCES] += module.types[1]
        rows[1 + INSTANCES :] += module.types[2] + grid_encodings(SIDE, D)
        tokens = tokens + attended(module.attention, rows, rows)
        tokens = tokens + fed(module.feed_forward, tokens)
        torch.testing.assert_close(torch.cat([new_frame[b], new_grid[b]]), tokens, **CLOSE)


@torch.no_grad()
def test_temporal_attention_matches_its_formula():
    module = awake(TemporalAttention(tiny()))
    frames = torch.randn(B, T, 1 + INSTANCES, D).double()
    found = module(frames)
    for b in range(B):
        rows = normed(module.norm, frames[b].flatten(0, 1)).view(T, 1 + INSTANCES, D)
        for t in range(T):
            rows[t] += encoding(t, D)
            rows[t, 0] += module.types[0]
            rows[t, 1:] += module.types[1]
        tokens = frames[b].flatten(0, 1)
        tokens = tokens + attended(module.attention, rows.flatten(0, 1), rows.flatten(0, 1))
        tokens = tokens + fed(module.feed_forward, tokens)
        torch.testing.assert_close(found[b].flatten(0, 1), tokens, **CLOSE)


@torch.no_grad()
def test_global_fusion_matches_its_formula():
    module = awake(GlobalFusion(tiny(global_matching="compound", compound_tokens=3)))
    local, frames = torch.randn(B, T, D).double(), torch.randn(B, T, 1 + INSTANCES, D).double()
    for b, found in enumerate(module(local, frames)):
        memory = normed(module.norm, frames[b].flatten(0, 1))
        fused = sum(local[b]) / T + attended(module.attention, module.tokens, memory)
        torch.testing.assert_close(found, fused + fed(module.feed_forward, fused))


def test_mean_fusion_repeats_the_mean_of_the_frames():
    module = MeanFusion(tiny(global_matching="compound", compound_tokens=3))
    local = torch.randn(B, T, D)
    found = module(local, torch.randn(B, T, 1 + INSTANCES, D))
    for b in range(B):
        torch.testing.assert_close(found[b], (sum(local[b]) / T).expand(3, D))


@pytest.mark.parametrize("name", ["query", "key", "value", "output"])
def test_weights_of_attention_begin_uniform_within_glorots_bound(name):
    weight = getattr(Attention(64, 4), name).weight
    bound = math.sqrt(6 / (64 + 64))
    assert 0.95 * bound < weight.abs().max() <= bound
    # A uniform spread has a deviation of bound / sqrt(3), here from 4,096 weights.
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (SpatialAttention, "types"),
        (TemporalAttention, "types"),
        (GlobalFusion, "tokens"),
        (InstanceEncoder, "queries"),
    ],
)
def test_learned_tokens_and_types_begin_small_beside_what_they_join(make, name):
    module = make(preset("i2st", token_dim=12, grid=SIDE, dim=256, global_matching="compound"))
    learned = getattr(module, name)
    assert learned.std().item() == pytest.approx(0.02, rel=0.15)


def test_hyrsm_asks_for_positions_of_its_own_width():
    method = get_method("hyrsm", heads=2)
    method.fit(TrainStatistics(embedding_dim=6, mean_embedding=torch.zeros(6)))
    assert method.positions(3).shape == (3, 6)
