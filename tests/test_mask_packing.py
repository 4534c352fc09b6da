import numpy as np
import pytest
import torch

from pipeline.masks import unpack_masks
from pipeline.segmenters.launches import launch
from pipeline.segmenters.mask_packing import Fetch, SlotMasks, pack_bits, upload


@pytest.mark.parametrize("shape", [(128, 128), (3, 4, 128, 128), (0, 4, 128, 128), (2, 16, 4)])
def test_bits_are_packed_as_numpy_packs_them(shape):
    cells = torch.rand(shape) < 0.4
    packed = pack_bits(cells)
    flat = cells.flatten(-2).numpy()
    assert packed.dtype == torch.uint8
    np.testing.assert_array_equal(packed, np.packbits(flat, axis=-1))


def test_fetched_masks_are_split_by_clip_and_what_is_empty_is_not_found():
    cells = torch.rand(6, 4, 128, 128) < 0.5
    cells[3, 1] = False
    score = torch.rand(6, 4)
    clips = Fetch(SlotMasks(cells, score)).masks(num_frames=2)
    assert len(clips) == 3
    for c, masks in enumerate(clips):
        own = slice(2 * c, 2 * c + 2)
        assert (masks.bits.shape, masks.bits.dtype) == ((2, 4, 2048), np.uint8)
        assert (masks.score.dtype, masks.found.dtype) == (np.float16, np.bool_)
        np.testing.assert_array_equal(unpack_masks(masks.bits), cells[own])
        found = np.ones((2, 4), bool)
        if c == 1:
            found[1, 1] = False
        np.testing.assert_array_equal(masks.found, found)
        np.testing.assert_array_equal(masks.score, score[own].numpy().astype(np.float16) * found)


def test_fetched_masks_share_no_memory():
    first, second = Fetch(SlotMasks(torch.ones(2, 4, 128, 128).bool(), torch.ones(2, 4))).masks(1)
    first.bits[:] = 0
    assert (second.bits == 255).all()


def test_an_array_is_uploaded_as_it_is():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(upload(array, torch.device("cpu")), array)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_every_launch_has_the_same_size_and_results_are_those_of_the_rows(count):
    sizes = []

    def run(numbers, pairs):
        sizes.append((len(numbers), len(pairs)))
        return numbers * 2, pairs.sum(dim=1)

    numbers, pairs = torch.arange(count), torch.rand(count, 5)
    doubled, sums = launch(run, numbers, pairs, size=3)
    assert sizes == [(3, 3)] * -(-count // 3)
    assert doubled.tolist() == [2 * n for n in range(count)]
    torch.testing.assert_close(sums, pairs.sum(dim=1))
