import numpy as np
import pytest
import torch
from colour_scenes import assert_same_masks

from pipeline.masks import unpack_masks
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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_masks_are_waited_for_on_the_gpu_that_has_them():
    # The last one: where there are two, it is not the current one.
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    cells, score = torch.rand(8, 4, 128, 128) < 0.5, torch.rand(8, 4)
    on_gpu = SlotMasks(cells.to(device), score.to(device))
    with torch.cuda.device(device):
        torch.cuda._sleep(1_000_000_000)
    expected = Fetch(SlotMasks(cells, score)).masks(4)
    for ours, theirs in zip(Fetch(on_gpu).masks(4), expected, strict=True):
        assert_same_masks(ours, theirs)


def test_an_array_is_uploaded_as_it_is():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(upload(array, torch.device("cpu")), array)
