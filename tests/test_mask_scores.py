import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import disk

from pipeline.scoring.mask_scores import MEASURES, frame_scores, middle_cells


def rectangle(rows, columns):
    mask = np.zeros((128, 128), bool)
    mask[rows, columns] = True
    return mask


def scores(mask, truth, found=True):
    (row,) = frame_scores(mask[None], np.array([found]), truth[None])
    return dict(zip(MEASURES, row, strict=True))


def round_mask(row, column, radius):
    mask = np.zeros((128, 128), bool)
    mask[disk((row, column), radius, shape=mask.shape)] = True
    return mask


def soft_iou_by_loops(mask, truth, grid):
    """On a canvas that ``grid`` divides, each cell's mean one after the other."""
    fine = 128 * grid
    common = either = 0.0
    for row in range(grid):
        for column in range(grid):
            shares = []
            for one in (mask, truth):
                total = 0
                for y in range(row * 128, (row + 1) * 128):
                    line = one[y * 128 // fine]
                    left, right = column * 128, (column + 1) * 128
                    total += line.repeat(grid)[left:right].sum()
                shares.append(total / 128**2)
            common += min(shares)
            either += max(shares)
    return common / either


def test_frame_scores_of_a_mask_that_covers_half_the_truth():
    truth = rectangle(slice(0, 64), slice(0, 128))
    assert scores(rectangle(slice(0, 32), slice(0, 128)), truth) == {
        "iou": 0.5,
        # 32 of 128 rows are 3.5 of 14 and 1.75 of 7 cells: nothing is lost where masks nest.
        "soft_iou_14": pytest.approx(0.5),
        "soft_iou_7": pytest.approx(0.5),
        "pointing": 1,
        "p_50": 0,  # 0.5 itself does not exceed 0.5
        "found": 1,
    }


def test_frame_scores_forgive_on_a_coarse_grid_what_lies_in_one_cell():
    # 7 cells of 128 / 7 = 18.3: both bars lie in the first column of cells.
    found = scores(rectangle(slice(0, 128), slice(0, 9)), rectangle(slice(0, 128), slice(9, 18)))
    assert (found["iou"], found["pointing"]) == (0, 0)
    assert found["soft_iou_7"] == pytest.approx(1)


@pytest.mark.parametrize("grid", [14, 7])
def test_soft_iou_equals_a_loop_over_cells(grid):
    mask, truth = round_mask(50, 60, 30), round_mask(70, 50, 25)
    expected = soft_iou_by_loops(mask, truth, grid)
    assert scores(mask, truth)[f"soft_iou_{grid}"] == pytest.approx(expected, abs=1e-9)


def test_frame_scores_of_the_truth_itself_are_one_and_of_a_mask_not_found_zero():
    truth = round_mask(0, 0, 20)  # with the cell that an empty mask's middle is said to be
    assert set(scores(truth, truth).values()) == {1.0}
    for absent in (scores(truth, truth, found=False), scores(np.zeros_like(truth), truth)):
        assert set(absent.values()) == {0.0}


def test_frame_scores_do_not_depend_on_the_other_frames():
    generator = np.random.default_rng(0)
    masks, truth = generator.random((2, 5, 128, 128)) < 0.3
    found = np.array([True, False, True, True, False])
    together = frame_scores(masks, found, truth)
    for number in range(5):
        alone = slice(number, number + 1)
        np.testing.assert_array_equal(
            together[alone], frame_scores(masks[alone], found[alone], truth[alone])
        )


def test_iou_equals_counts_of_sets():
    mask, truth = round_mask(50, 60, 30), round_mask(70, 50, 25)
    first, second = (set(map(tuple, np.argwhere(one))) for one in (mask, truth))
    assert scores(mask, truth)["iou"] == pytest.approx(len(first & second) / len(first | second))


def test_middle_cell_is_the_cell_nearest_to_the_centre_of_mass():
    ring = round_mask(64, 60, 40) & ~round_mask(64, 60, 30)
    masks = np.stack(
        [
            round_mask(20, 100, 9),
            ring,
            *(np.random.default_rng(1).random((20, *ring.shape)) < 0.002),
        ]
    )
    for mask, cell in zip(masks, middle_cells(masks), strict=True):
        assert mask[tuple(cell)]
        centre = ndimage.center_of_mass(mask)
        nearest = np.linalg.norm(np.argwhere(mask) - centre, axis=1).min()
        assert np.linalg.norm(cell - centre) == pytest.approx(nearest)


def test_frame_scores_refuse_an_empty_truth_and_shapes_that_differ():
    mask = round_mask(40, 80, 20)
    with pytest.raises(ValueError, match="a truth is empty"):
        scores(mask, np.zeros_like(mask))
    with pytest.raises(ValueError, match=r"found \(2,\)"):
        frame_scores(mask[None], np.ones(2, bool), mask[None])
