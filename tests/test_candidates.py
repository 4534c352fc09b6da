import numpy as np
import pytest
import torch

from pipeline.masks import area_weights
from pipeline.segmenters.assembly import pool_to_cells, select_actors, threshold_to_cells, unite
from pipeline.segmenters.candidates import choose, map_on_masks
from pipeline.segmenters.sam_decoding import Candidates

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


def test_pooling_from_a_padded_canvas_matches_pooling_the_frame_alone():
    torch.manual_seed(0)
    masks = torch.rand(3, 256, 256) < 0.5
    rows = area_weights(128, 192) @ masks[:, :192].double().numpy()
    expected = rows @ area_weights(128, 256).T > 0.5 + 1e-9
    np.testing.assert_array_equal(pool_to_cells(masks, (192.0, 256.0)), expected)


@pytest.mark.parametrize("height", [240, 241, 180])
def test_a_shape_in_a_wide_frame_survives_resize_and_padding_within_one_cell(height):
    # SAM's canvas: 320 pixels become 256 cells, the rest is padding.
    y, x = np.mgrid[:256, :256] + 0.5
    scale = 256 / 320
    canvas = ((y / scale - height / 2) / 60) ** 2 + ((x / scale - 100) / 50) ** 2 < 1
    pooled = pool_to_cells(torch.from_numpy(canvas)[None], (height * scale, 256.0))[0].numpy()
    rows, columns = np.nonzero(pooled)
    cell_y, cell_x = height / 128, 320 / 128
    assert abs(rows.min() * cell_y - (height / 2 - 60)) < cell_y
    assert abs((rows.max() + 1) * cell_y - (height / 2 + 60)) < cell_y
    assert abs(columns.min() * cell_x - 50) < cell_x
    assert abs((columns.max() + 1) * cell_x - 150) < cell_x


def cells_mask(rows, columns):
    return box_mask(rows, columns, side=128)


def test_of_several_actors_those_who_touch_an_object_act():
    near, far, also_far = (cells_mask(slice(0, 20), slice(c, c + 10)) for c in (0, 50, 90))
    ball = cells_mask(slice(20, 24), slice(0, 4))
    keep = select_actors(torch.stack([far, near, also_far]), ball)
    assert keep.tolist() == [False, True, False]
    assert select_actors(far[None], ball).tolist() == [True]


def test_without_an_object_the_two_largest_act():
    sizes = (cells_mask(slice(0, s), slice(40 * i, 40 * i + 10)) for i, s in enumerate((5, 50, 20)))
    nothing = torch.zeros(128, 128, dtype=torch.bool)
    assert select_actors(torch.stack([*sizes]), nothing).tolist() == [False, True, True]


def test_a_map_is_cut_at_its_threshold():
    maps = torch.zeros(2, 4, 8)
    maps[0, :, 4:] = 0.8
    masks, means = threshold_to_cells(maps, torch.tensor([0.4, 0.4]))
    assert 0.49 < masks[0].float().mean() < 0.52
    assert not masks[1].any()
    assert float(means[0]) == pytest.approx(0.78, abs=0.03)
    assert float(means[1]) == 0


def test_union_falls_back_to_the_map_where_every_mask_was_rejected():
    maps = torch.zeros(4, 8, 8)
    maps[0, :2], maps[2, :, :4], maps[3] = 0.8, 0.8, 0.8
    instances = torch.stack([cells_mask(slice(0, 10), slice(0, 10))] * 3)
    masks = unite(
        maps,
        torch.full((4,), 0.4),
        torch.tensor([0, 2, 3]),
        instances,
        torch.tensor([0.7, 0.0, 0.0]),
        slots=[0, 2],
        max_area=0.9,
        fallback_score=0.1,
    )
    # Two frames of two nouns: an instance; nothing; a map; a map that covers everything.
    np.testing.assert_array_equal(masks.found, [[1, 0, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_allclose(masks.score[:, 0], [0.7, 0.078], atol=0.003)
    assert np.unpackbits(masks.bits[0, 0]).sum() == 100
    assert np.unpackbits(masks.bits[1, 0]).mean() == pytest.approx(0.5, abs=0.02)
