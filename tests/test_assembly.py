import numpy as np
import pytest
import torch

from pipeline.masks import area_weights
from pipeline.segmenters.assembly import (
    cover_of_cells,
    cut_maps,
    pool_to_cells,
    select_actors,
    unite,
)
from pipeline.segmenters.mask_packing import SlotMasks


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


def test_a_cell_is_covered_by_the_share_of_it_that_is_set():
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[0, :3] = mask[1, 0] = True
    # The frame fills 6 rows and 8 columns: 3 x 2 cells of 2 x 4.
    covered = cover_of_cells(mask, (6.0, 8.0), (3, 2))
    assert covered.flatten().tolist() == pytest.approx([0.5, 0, 0, 0, 0, 0])


def cells_mask(rows, columns):
    mask = torch.zeros(128, 128, dtype=torch.bool)
    mask[rows, columns] = True
    return mask


NEAR, FAR, ALSO_FAR = (cells_mask(slice(0, 20), slice(c, c + 10)) for c in (0, 50, 90))
BALL = cells_mask(slice(20, 24), slice(0, 4))
NOTHING = torch.zeros(128, 128, dtype=torch.bool)


def actors_of(actors, objects, valid):
    return select_actors(torch.stack(actors)[None], objects[None], torch.tensor([valid]))[
        0
    ].tolist()


def test_of_several_actors_those_who_touch_an_object_act():
    assert actors_of([FAR, NEAR, ALSO_FAR], BALL, [True] * 3) == [False, True, False]
    assert actors_of([FAR, NEAR, NEAR], BALL, [True] * 3) == [False, True, True]
    assert actors_of([FAR, FAR, FAR], BALL, [True, False, False]) == [True, False, False]


def test_actors_of_one_frame_need_no_other_axis():
    assert select_actors(torch.stack([FAR, NEAR]), BALL).tolist() == [False, True]
    assert select_actors(torch.stack([NEAR]), NOTHING).tolist() == [True]
    assert select_actors(torch.stack([FAR, NEAR, ALSO_FAR]), NOTHING).sum() == 2


def test_an_actor_that_is_not_there_touches_nothing():
    assert actors_of([FAR, NEAR, ALSO_FAR], BALL, [True, False, True]) == [True, False, True]


def test_without_an_object_the_two_largest_act():
    sizes = [cells_mask(slice(0, s), slice(40 * i, 40 * i + 10)) for i, s in enumerate((5, 50, 20))]
    assert actors_of(sizes, NOTHING, [True] * 3) == [False, True, True]
    assert actors_of(sizes, NOTHING, [True, False, True]) == [True, False, True]
    # Of equal ones, the stronger component, which comes first.
    assert actors_of([FAR, NEAR, ALSO_FAR], NOTHING, [True] * 3) == [True, True, False]


def test_a_map_is_cut_at_its_threshold():
    maps = torch.zeros(1, 2, 4, 8)
    maps[0, 0, :, 4:] = 0.8
    cut = cut_maps(maps, torch.tensor([[0.4, 0.4]]), max_area=0.9, score_factor=0.1)
    assert 0.49 < cut.cells[0, 0].float().mean() < 0.52
    assert not cut.cells[0, 1].any()
    assert cut.score[0].tolist() == pytest.approx([0.078, 0], abs=0.003)


def test_a_map_that_covers_nearly_everything_stands_in_for_nothing():
    maps = torch.full((1, 1, 4, 8), 0.8)
    for limit, covered in ((0.9, 0), (1.0, 128 * 128)):
        cut = cut_maps(maps, torch.tensor([[0.4]]), max_area=limit, score_factor=0.1)
        assert int(cut.cells.sum()) == covered


def layout(num_frames):
    """Room for two instances in each of a frame's four slots, all empty, and nothing instead."""
    instances = torch.zeros(num_frames, 4, 2, 128, 128, dtype=torch.bool)
    otherwise = SlotMasks(instances[:, :, 0].clone(), torch.zeros(num_frames, 4))
    return instances, torch.zeros(num_frames, 4, 2), otherwise


def test_instances_of_a_slot_are_united_and_their_scores_averaged():
    instances, scores, otherwise = layout(2)
    instances[0, 2, 0], instances[0, 2, 1] = NEAR, FAR
    scores[0, 2] = torch.tensor([0.9, 0.4])
    # What scores 0 is no instance, whatever its mask.
    instances[1, 1, 0], instances[1, 1, 1] = NEAR, FAR
    scores[1, 1, 1] = 0.4
    united = unite(instances, scores, otherwise)
    assert torch.equal(united.cells[0, 2], NEAR | FAR)
    assert torch.equal(united.cells[1, 1], FAR)
    assert united.score.flatten().tolist() == pytest.approx([0, 0, 0.65, 0, 0, 0.4, 0, 0])
    assert united.cells.flatten(2).any(dim=2).flatten().nonzero().flatten().tolist() == [2, 5]


def test_a_slot_without_an_instance_takes_what_stands_in():
    instances, scores, otherwise = layout(1)
    otherwise.cells[0, 1], otherwise.score[0, 1] = BALL, 0.05
    instances[0, 0, 0], instances[0, 0, 1] = FAR, NEAR
    scores[0, 0] = torch.tensor([0.9, 0.5])
    united = unite(instances, scores, otherwise)
    assert torch.equal(united.cells[0, 1], BALL)
    # It counts as an object: the actor who touches it acts.
    assert torch.equal(united.cells[0, 0], NEAR)
    assert united.score[0].tolist() == pytest.approx([0.5, 0.05, 0, 0])


def test_frames_are_united_as_if_each_were_alone():
    rng = torch.Generator().manual_seed(0)
    instances = torch.rand(5, 4, 2, 128, 128, generator=rng) < 0.001
    scores = (torch.rand(5, 4, 2, generator=rng) - 0.3).clamp(min=0)
    otherwise = SlotMasks(instances[:, :, 0], torch.rand(5, 4, generator=rng))
    together = unite(instances, scores, otherwise)
    for b in range(5):
        frame = slice(b, b + 1)
        instead = SlotMasks(otherwise.cells[frame], otherwise.score[frame])
        alone = unite(instances[frame], scores[frame], instead)
        assert torch.equal(together.cells[b], alone.cells[0])
        assert torch.equal(together.score[b], alone.score[0])
