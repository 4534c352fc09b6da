import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.masks import (
    area_weights,
    decode_coco_rle,
    grid_coverage,
    pack_masks,
    pool_masks,
    unpack_masks,
)


def packed_slots(*masks):
    return pack_masks(np.stack(masks))


def rectangle(rows, columns, side=128):
    mask = np.zeros((side, side), bool)
    mask[rows, columns] = True
    return mask


def test_pool_masks_matches_a_mean_over_blocks_where_cells_hold_whole_pixels():
    masks = np.random.default_rng(0).random((3, 256, 384)) < 0.5
    blocks = masks.reshape(3, 128, 2, 128, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(pool_masks(masks), blocks > 0.5)


def test_pool_masks_leaves_a_half_covered_cell_unset():
    mask = np.zeros((256, 256), bool)
    mask[0, :2] = True
    mask[2:4, 2:4] = mask[4, 4:6] = mask[5, 4] = True
    pooled = pool_masks(mask)
    assert not pooled[0, 0]
    assert pooled[1, 1]
    assert pooled[2, 2]
    assert pooled.sum() == 2


@pytest.mark.parametrize(("height", "width"), [(240, 320), (64, 100), (128, 128), (1, 1)])
def test_pool_masks_keeps_a_full_and_an_empty_mask(height, width):
    assert pool_masks(np.ones((height, width), bool)).all()
    assert not pool_masks(np.zeros((height, width), bool)).any()


def test_pool_masks_repeats_pixels_when_the_mask_is_coarser_than_the_cells():
    mask = np.random.default_rng(0).random((32, 64)) < 0.5
    np.testing.assert_array_equal(pool_masks(mask), mask.repeat(4, axis=0).repeat(2, axis=1))


@given(num_cells=st.integers(1, 40), size=st.integers(1, 60), share=st.floats(0.1, 1.0))
def test_area_weights_share_out_the_extent_and_nothing_beyond(num_cells, size, share):
    extent = size * share
    weights = area_weights(num_cells, size, extent)
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-12)
    covered = np.clip(extent - np.arange(size), 0, 1)
    np.testing.assert_allclose(weights.sum(axis=0), covered * num_cells / extent, atol=1e-9)


def test_area_weights_refuses_an_extent_beyond_the_axis():
    with pytest.raises(ValueError, match=r"extent is 9 pixels; needed above 0 and at most size=8"):
        area_weights(4, 8, 9)


def test_packed_masks_unpack_with_numpy_and_come_back():
    masks = np.random.default_rng(0).random((2, 4, 128, 128)) < 0.3
    bits = pack_masks(masks)
    assert bits.shape == (2, 4, 2048)
    np.testing.assert_array_equal(
        np.unpackbits(bits, axis=-1).reshape(masks.shape).astype(bool), masks
    )
    np.testing.assert_array_equal(unpack_masks(bits), masks)


def test_packing_refuses_another_size():
    with pytest.raises(ValueError, match=r"end in \(64, 64\); needed \(128, 128\)"):
        pack_masks(np.zeros((64, 64), bool))
    with pytest.raises(ValueError, match=r"end in 512 bytes; needed 2048"):
        unpack_masks(np.zeros((1, 512), np.uint8))


def test_grid_coverage_of_a_half_covered_cell_is_one_half():
    bits = packed_slots(rectangle(slice(0, 64), slice(0, 8)))
    coverage = grid_coverage(bits, np.array([True]), 8)
    expected = np.zeros((8, 8), np.float32)
    expected[:4, 0] = 0.5
    np.testing.assert_allclose(coverage, expected, atol=1e-6)


def test_grid_coverage_sees_the_window_of_a_centre_crop():
    bits = packed_slots(rectangle(slice(8, 24), slice(8, 16)))
    coverage = grid_coverage(bits, np.array([True]), 7, window=slice(8, 120))
    expected = np.zeros((7, 7), np.float32)
    expected[0, 0] = 0.5
    np.testing.assert_allclose(coverage, expected, atol=1e-6)


def test_grid_coverage_shares_out_cells_that_the_grid_does_not_divide():
    bits = packed_slots(rectangle(slice(0, 128), slice(0, 64)))
    coverage = grid_coverage(bits, np.array([True]), 7)
    np.testing.assert_allclose(coverage, np.tile([1, 1, 1, 0.5, 0, 0, 0], (7, 1)), atol=1e-5)


def test_grid_coverage_unites_found_slots_and_skips_the_others():
    left, top = (
        rectangle(slice(0, 128), slice(0, 64)),
        rectangle(slice(0, 64), slice(0, 128)),
    )
    bits = packed_slots(left, top)[None].repeat(4, axis=0)
    found = np.array([[True, True], [True, False], [False, True], [False, False]])
    coverage = grid_coverage(bits, found, 2)
    np.testing.assert_allclose(coverage[0], [[1, 1], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(coverage[1], [[1, 0], [1, 0]], atol=1e-6)
    np.testing.assert_allclose(coverage[2], [[1, 1], [0, 0]], atol=1e-6)
    assert not coverage[3].any()


def test_grid_coverage_flips_with_its_masks():
    masks = np.random.default_rng(0).random((4, 128, 128)) < 0.5
    found = np.ones(4, bool)
    plain = grid_coverage(pack_masks(masks), found, 7, window=slice(8, 120))
    flipped = grid_coverage(pack_masks(masks[..., ::-1]), found, 7, window=slice(8, 120))
    np.testing.assert_allclose(flipped, plain[:, ::-1], atol=1e-6)


def encode_runs(mask):
    """Column-major run lengths, written out pixel by pixel."""
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def compress_runs(runs):
    """COCO's string form, by its definition: 5 bits at a time, signed, bit 5 says more follows."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        more = True
        while more:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            text += chr((group | (32 if more else 0)) + 48)
    return text


@given(mask=arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_coco_runs_decode_to_the_mask_they_were_written_from(mask):
    runs = encode_runs(mask)
    np.testing.assert_array_equal(decode_coco_rle(runs, *mask.shape), mask)
    np.testing.assert_array_equal(decode_coco_rle(compress_runs(runs), *mask.shape), mask)


def test_coco_runs_decode_the_string_that_pycocotools_writes():
    # pycocotools 2.0.11: mask.encode of the disc below, 40 x 50.
    counts = b"fe09m04M2N2N2O0O2O0000000000000001N101N2N2N3Ld>"
    y, x = np.mgrid[:40, :50]
    disc = (y - 18) ** 2 + (x - 27) ** 2 < 120
    np.testing.assert_array_equal(decode_coco_rle(counts, 40, 50), disc)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 4], r"add up to 7 pixels; needed 2 x 4"),
        ([-1, 9], r"add up to 8 pixels; needed 2 x 4"),
        ("\x7f", r"byte 127 in run lengths"),
        ("o" * 9, r"8 bytes a run at most"),
    ],
)
def test_coco_runs_are_refused_when_they_do_not_fit(counts, message):
    with pytest.raises(ValueError, match=message):
        decode_coco_rle(counts, 2, 4)
