import itertools

import numpy as np
import pytest
import torch
from skimage.measure import label

from pipeline.segmenters.sam_clip.components import label_components, strongest_components


def same_partition(ours, theirs):
    """Two labellings agree where each label of one meets exactly one label of the other."""
    pairs = set(zip(ours.ravel().tolist(), theirs.ravel().tolist(), strict=True))
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def spiral(height, width):
    """A path of single cells, with a gap of one beside it, from a corner to the middle."""
    cells = np.zeros((height, width), bool)
    row = column = 0
    steps, turns_in_vain = itertools.cycle([(0, 1), (1, 0), (0, -1), (-1, 0)]), 0
    cells[0, 0] = True

    def is_free(down, right):
        ahead, beyond = ((row + n * down, column + n * right) for n in (1, 2))
        inside = [0 <= y < height and 0 <= x < width for y, x in (ahead, beyond)]
        return inside[0] and not cells[ahead] and not (inside[1] and cells[beyond])

    while turns_in_vain < 2:
        down, right = next(steps)
        turns_in_vain += 1
        while is_free(down, right):
            row, column, turns_in_vain = row + down, column + right, 0
            cells[row, column] = True
    return cells


def comb(height, width):
    cells = np.zeros((height, width), bool)
    cells[:, ::2] = cells[0] = True
    return cells


def snake(height, width):
    cells = np.zeros((height, width), bool)
    cells[::2] = True
    for turn, row in enumerate(range(1, height, 2)):
        cells[row, 0 if turn % 2 else -1] = True
    return cells


def maze(height, width, rng):
    """A random tree of corridors over every other cell."""
    cells = np.zeros((height, width), bool)
    cells[0, 0] = True
    path = [(0, 0)]
    while path:
        row, column = path[-1]
        ways = [
            (down, right)
            for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0))
            if 0 <= row + 2 * down < height
            and 0 <= column + 2 * right < width
            and not cells[row + 2 * down, column + 2 * right]
        ]
        if not ways:
            path.pop()
            continue
        down, right = ways[rng.integers(len(ways))]
        cells[row + down, column + right] = cells[row + 2 * down, column + 2 * right] = True
        path.append((row + 2 * down, column + 2 * right))
    return cells


def hard_masks(height, width):
    """Long paths, each also mirrored and turned upside down; and percolation near its threshold."""
    rng = np.random.default_rng(height)
    paths = [make(height, width) for make in (spiral, comb, snake)]
    paths += [make(width, height).T for make in (spiral, comb, snake)]
    paths += [maze(height, width, rng) for _ in range(4)]
    flips = [path[::down, ::right] for path in paths for down in (1, -1) for right in (1, -1)]
    shares = np.repeat((0.1, 0.3, 0.38, 0.407, 0.43, 0.5, 0.6, 0.9), 8)
    chance = [rng.random((height, width)) < share for share in shares]
    return np.stack([*flips, *chance])


@pytest.mark.parametrize("size", [(28, 37), (28, 50), (42, 75), (64, 64), (3, 200), (1, 1)])
@pytest.mark.parametrize("fixed", [True, False])
def test_components_agree_with_skimage_along_long_paths_and_by_chance(size, fixed):
    masks = hard_masks(*size)
    labels = label_components(torch.from_numpy(masks), fixed=fixed).numpy()
    for ours, mask in zip(labels, masks, strict=True):
        assert same_partition(ours, label(mask, connectivity=2))


def test_the_hard_cases_are_single_paths():
    for make in (spiral, comb, snake):
        cells = make(28, 37)
        assert label(cells, connectivity=2).max() == 1
        assert cells.sum() > 400


def test_an_empty_and_a_full_map_have_no_and_one_component():
    masks = torch.stack([torch.zeros(5, 6), torch.ones(5, 6)]).bool()
    labels = label_components(masks, fixed=True)
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
    assert found.valid.tolist() == [[True, True], [False, False]]
    np.testing.assert_array_equal(found.cells[0, 0].nonzero().amin(0), [6, 10])
    assert found.cells.sum(dim=(2, 3)).tolist() == [[30, 8], [0, 0]]
    torch.testing.assert_close(
        found.boxes[0], torch.tensor([[9.5 / 20, 0.55, 1, 0.95], [0.5 / 20, 0.05, 5.5 / 20, 0.35]])
    )
    torch.testing.assert_close(found.peaks[0, 0], torch.tensor([12.5 / 20, 7.5 / 10]))
    assert found.peak_values[0].tolist() == pytest.approx([0.9, 0.5])


def test_the_peak_of_a_saturated_component_lies_inside_it():
    maps = torch.zeros(1, 9, 9)
    maps[0, 2:7, 3:8] = 1.0
    found = strongest_components(maps, torch.tensor([0.5]), count=1)
    x, y = (found.peaks[0, 0] * 9 - 0.5).round().int().tolist()
    assert 3 < x < 7
    assert 2 < y < 6


def test_no_component_is_found_where_nothing_exceeds_the_threshold():
    found = strongest_components(torch.full((3, 4, 5), 0.2), torch.full((3,), 0.2), count=3)
    assert not found.valid.any()
    assert not found.cells.any()
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all()


def test_of_components_of_equal_mass_the_upper_comes_first():
    maps = torch.zeros(1, 9, 9)
    maps[0, 6:8, 1:3], maps[0, 1:3, 5:7] = 0.5, 0.5
    found = strongest_components(maps, torch.tensor([0.4]), count=3)
    assert found.valid.tolist() == [[True, True, False]]
    assert found.cells[0, 0, 1, 5]
    assert found.cells[0, 1, 6, 1]


def test_components_of_a_map_do_not_depend_on_the_maps_beside_it():
    maps = torch.rand(6, 12, 9)
    together = strongest_components(maps, torch.full((6,), 0.7), count=3)
    alone = strongest_components(maps[4:5], torch.full((1,), 0.7), count=3)
    for ours, own in zip(together, alone, strict=True):
        assert torch.equal(ours[4], own[0])
