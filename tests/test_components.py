import numpy as np
import pytest
import torch
from skimage.measure import label

from pipeline.segmenters.components import label_components, strongest_components


def same_partition(ours, theirs):
    """Two labellings agree where each label of one meets exactly one label of the other."""
    pairs = set(zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_components_agree_with_skimage_on_random_maps():
    rng = np.random.default_rng(0)
    for share in (0.1, 0.3, 0.4, 0.5, 0.6, 0.9):
        masks = rng.random((20, 28, 37)) < share
        labels = label_components(torch.from_numpy(masks)).numpy()
        for ours, mask in zip(labels, masks, strict=True):
            assert same_partition(ours, label(mask, connectivity=2))


def test_components_follow_a_spiral_to_its_end():
    spiral = np.zeros((41, 41), bool)
    row = column = turn = 0
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    length = 40
    spiral[0, 0] = True
    while length > 0:
        for _ in range(2 if length < 40 else 3):
            for _ in range(length):
                row, column = row + steps[turn % 4][0], column + steps[turn % 4][1]
                spiral[row, column] = True
            turn += 1
        length -= 2
    labels = label_components(torch.from_numpy(spiral)[None])[0].numpy()
    assert label(spiral, connectivity=2).max() == 1
    assert set(labels[spiral].tolist()) == {labels.max()}


def test_an_empty_and_a_full_map_have_no_and_one_component():
    masks = torch.stack([torch.zeros(5, 6), torch.ones(5, 6)]).bool()
    labels = label_components(masks)
    assert not labels[0].any()
    assert labels[1].unique().numel() == 1


def test_strongest_components_come_by_mass_with_box_and_peak():
    maps = torch.zeros(2, 10, 20)
    maps[0, 1:3, 1:5] = 0.5
    maps[0, 6:9, 10:20] = 0.4
    maps[0, 7, 12] = 0.9
    maps[0, 5, 0] = 0.6
    maps[1, 0, 0] = 0.1
    found = strongest_components(maps, torch.tensor([0.3, 0.3]), count=2)
    assert found.map_index.tolist() == [0, 0]
    np.testing.assert_array_equal(found.cells[0].nonzero().amin(0), [6, 10])
    assert found.cells.sum(dim=(1, 2)).tolist() == [30, 8]
    torch.testing.assert_close(
        found.boxes, torch.tensor([[9.5 / 20, 0.55, 1, 0.95], [0.5 / 20, 0.05, 5.5 / 20, 0.35]])
    )
    torch.testing.assert_close(found.peaks[0], torch.tensor([12.5 / 20, 7.5 / 10]))
    assert found.peak_values.tolist() == pytest.approx([0.9, 0.5])


def test_the_peak_of_a_saturated_component_lies_inside_it():
    maps = torch.zeros(1, 9, 9)
    maps[0, 2:7, 3:8] = 1.0
    found = strongest_components(maps, torch.tensor([0.5]), count=1)
    x, y = (found.peaks[0] * 9 - 0.5).round().int().tolist()
    assert 3 < x < 7
    assert 2 < y < 6


def test_no_component_is_found_where_nothing_exceeds_the_threshold():
    found = strongest_components(torch.full((3, 4, 5), 0.2), torch.full((3,), 0.2), count=3)
    assert found.cells.shape == (0, 4, 5)
    assert found.boxes.shape == (0, 4)


def test_components_of_a_map_do_not_depend_on_the_maps_beside_it():
    maps = torch.rand(6, 12, 9)
    together = strongest_components(maps, torch.full((6,), 0.7), count=3)
    alone = strongest_components(maps[4:5], torch.full((1,), 0.7), count=3)
    rows = together.map_index == 4
    torch.testing.assert_close(together.boxes[rows], alone.boxes)
    torch.testing.assert_close(together.peaks[rows], alone.peaks)
    assert torch.equal(together.cells[rows], alone.cells)
