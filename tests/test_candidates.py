import numpy as np
import pytest
import torch
from skimage.morphology import dilation

from pipeline.segmenters.sam.decoding import Candidates
from pipeline.segmenters.sam_clip.candidates import choose, map_on_masks

LIMITS = {"min_area": 5e-4, "max_area": 0.9}
FULL = (64.0, 64.0)


def box_mask(rows, columns, side=64):
    mask = torch.zeros(side, side, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


def candidates_of(*masks, quality=(1.0, 1.0, 1.0, 1.0)):
    logits = torch.where(torch.stack(masks), 10.0, -10.0)[None]
    return Candidates(logits, torch.tensor([quality]))


def square_map():
    """A map that is 0.9 on rows and columns 4..7 of 16, which are 16..31 of 64."""
    maps = torch.full((1, 16, 16), 0.1)
    maps[0, 4:8, 4:8] = 0.9
    return maps


OBJECT = box_mask(slice(16, 32), slice(16, 32))
EVERYTHING = box_mask(slice(0, 64), slice(0, 64))
OUTSIDE = ~OBJECT
SPECK = box_mask(slice(20, 21), slice(20, 21))


def test_the_candidate_that_fits_the_map_wins_over_a_better_quality():
    candidates = candidates_of(EVERYTHING, OUTSIDE, OBJECT, SPECK, quality=(1.0, 1.0, 0.6, 1.0))
    chosen = choose(candidates, square_map(), torch.tensor([0.9]), FULL, **LIMITS)
    assert torch.equal(chosen.masks[0], OBJECT)
    # Inside 0.9 but for the interpolated rim; the ring is two cells of the map, 8 pixels, wide.
    on_masks, _ = map_on_masks(square_map(), 64, FULL)
    ring = box_mask(slice(8, 40), slice(8, 40)) & ~OBJECT
    expected = (on_masks[0][OBJECT].mean() - on_masks[0][ring].mean()) * 0.6**0.5
    assert float(chosen.score) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("rejected", [EVERYTHING, SPECK, OUTSIDE, torch.zeros_like(OBJECT)])
def test_a_prompt_without_an_acceptable_candidate_scores_zero(rejected):
    chosen = choose(
        candidates_of(*[rejected] * 4), square_map(), torch.tensor([0.9]), FULL, **LIMITS
    )
    assert chosen.score.tolist() == [0.0]


def test_a_mask_of_nearly_everything_is_rejected_though_the_map_agrees():
    maps = torch.full((1, 16, 16), 0.9)
    chosen = choose(candidates_of(*[EVERYTHING] * 4), maps, torch.tensor([0.9]), FULL, **LIMITS)
    assert chosen.score.tolist() == [0.0]
    loose = {**LIMITS, "max_area": 1.0}
    chosen = choose(candidates_of(*[EVERYTHING] * 4), maps, torch.tensor([0.9]), FULL, **loose)
    assert float(chosen.score) == pytest.approx(0.9)


def test_a_mask_that_is_mostly_surroundings_is_rejected_though_it_stands_out():
    wide = box_mask(slice(8, 40), slice(8, 40))
    candidates = candidates_of(*[wide] * 4)
    chosen = choose(candidates, square_map(), torch.tensor([0.9]), FULL, **LIMITS)
    assert chosen.score.tolist() == [0.0]
    chosen = choose(candidates, square_map(), torch.tensor([0.5]), FULL, **LIMITS)
    assert 0.1 < float(chosen.score) < 0.3


def test_an_unstable_mask_scores_less():
    candidates = candidates_of(OBJECT, OBJECT, OBJECT, OBJECT)
    candidates.logits[0, :, 16:32, 24:32] = 0.5
    chosen = choose(candidates, square_map(), torch.tensor([0.9]), FULL, **LIMITS)
    firm = choose(candidates_of(*[OBJECT] * 4), square_map(), torch.tensor([0.9]), FULL, **LIMITS)
    assert float(chosen.score / firm.score) == pytest.approx(0.5**0.5)


def test_masks_in_the_padding_count_for_nothing():
    extent = (32.0, 64.0)
    maps = torch.full((1, 8, 16), 0.1)
    maps[0, 4:8, 4:8] = 0.9
    padded = OBJECT | box_mask(slice(32, 64), slice(0, 64))
    chosen = choose(candidates_of(*[padded] * 4), maps, torch.tensor([0.9]), extent, **LIMITS)
    assert torch.equal(chosen.masks[0], OBJECT)
    assert float(chosen.score) > 0.3


def test_maps_are_sampled_at_the_centres_of_the_cells():
    maps = torch.linspace(0, 1, 8).expand(1, 4, 8)
    sampled, valid = map_on_masks(maps, 32, (16.0, 32.0))
    x = np.clip(((np.arange(32) + 0.5) / 32 * 8 - 0.5) / 7, 0, 1)
    np.testing.assert_allclose(sampled[0, 5], x, atol=1e-6)
    np.testing.assert_array_equal(valid, np.arange(32)[:, None].repeat(32, 1) < 16)


@pytest.mark.parametrize("extent", [(64.0, 64.0), (36.0, 64.0), (64.0, 21.3)])
def test_the_ring_is_two_cells_of_the_map_wide(extent):
    # The map is 1 only in the ring that skimage grows, so the contrast of the mask tells its width.
    mask = torch.rand(64, 64) < 0.003
    mask[int(extent[0]) :], mask[:, int(extent[1]) :] = False, False
    # The second lies where the ring would reach beyond the frame.
    mask[10, 10] = mask[int(extent[0]) - 1, int(extent[1]) - 1] = True
    grid = (16, 16)
    down, right = (max(1, round(2 * length / 16)) for length in extent)
    grown = dilation(mask.numpy(), np.ones((2 * down + 1, 2 * right + 1), bool))
    rows, columns = (np.arange(64) + 0.5 < length for length in extent)
    ring = torch.from_numpy(grown & rows[:, None] & columns) & ~mask
    maps = torch.rand(1, *grid)
    on_masks, _ = map_on_masks(maps, 64, extent)
    expected = (on_masks[0][mask].mean() - on_masks[0][ring].mean()).clamp(min=0)
    chosen = choose(
        candidates_of(*[mask] * 4), maps, torch.tensor([0.0]), extent, min_area=0, max_area=1
    )
    assert float(chosen.score) == pytest.approx(float(expected), abs=1e-5)
