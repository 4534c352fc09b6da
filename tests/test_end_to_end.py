"""Clips of stored frames: crops, mirroring and light that are the same for frames and masks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_frames import make_frame_shards

from i2st_model.drawing.draws import Stream, Words
from i2st_model.end_to_end.colour_jitter import draw_factors, jitter
from i2st_model.end_to_end.encoder_config import EncoderConfig, encoder_config
from i2st_model.end_to_end.frame_clips import FrameClips
from i2st_model.end_to_end.framing import Crops, Framing
from pipeline.errors import ConfigError, ShardError
from pipeline.masks import pack_masks
from pipeline.views import square_view


def words(number=0):
    return Words(Stream.CROP, 0, number)


def one_crop(top, left, mirrored):
    return Crops(top=np.array([top]), left=np.array([left]), mirrored=np.array([mirrored]))


def packed(mask):
    """(128, 128) bool -> one clip of one frame with one slot, and that it was found."""
    return pack_masks(mask[None, None, None]), np.ones((1, 1, 1), bool)


# --- geometry ---


@pytest.mark.parametrize("geometry", ["center_crop", "full_frame"])
@pytest.mark.parametrize("side", [64, 112, 160, 224])
def test_middle_crop_is_the_test_view(geometry, side):
    frames = np.random.default_rng(0).integers(0, 256, (2, 50, 70, 3), dtype=np.uint8)
    framing = Framing(side, geometry)
    expected = square_view(frames, image_size=side, geometry=geometry)
    for frame, view in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(framing.view(frame, framing.middle(1), 0), view)


@settings(max_examples=25)
@given(
    top=st.integers(0, 32), left=st.integers(0, 32), mirrored=st.booleans(), seed=st.integers(0, 9)
)
def test_masks_follow_every_crop_to_the_pixel(top, left, mirrored, seed):
    mask = np.random.default_rng(seed).random((128, 128)) < 0.4
    # A frame of 256 x 256 is not resized; each cell of the mask is 2 x 2 of its pixels.
    frame = np.repeat((mask * 255).astype(np.uint8).repeat(2, 0).repeat(2, 1)[..., None], 3, -1)
    framing, crops = Framing(224, "center_crop"), one_crop(top, left, mirrored)
    shown = framing.view(frame, crops, 0)[..., 0] / 255
    covered = framing.coverage(*packed(mask), crops, 224)[0, 0]
    np.testing.assert_allclose(covered, shown, atol=1e-5)
    coarse = framing.coverage(*packed(mask), crops, 7)[0, 0]
    np.testing.assert_allclose(coarse, shown.reshape(7, 32, 7, 32).mean(axis=(1, 3)), atol=1e-5)


def overlap(low, high, cell):
    return max(0.0, min(high, cell + 1) - max(low, cell))


@pytest.mark.parametrize(("top", "left"), [(0, 0), (9, 0), (4, 7)])
def test_coverage_is_exact_where_crops_cut_cells(top, left):
    mask = np.random.default_rng(1).random((128, 128)) < 0.5
    framing = Framing(64, "center_crop")
    assert framing.side == 73  # 64 x 128 / 112, rounded: no whole number of pixels per cell
    assert framing.room == 9
    cells, grid = 128 / 73, 4
    size = 64 * cells / grid
    expected = np.zeros((grid, grid))
    for i in range(grid):
        for j in range(grid):
            first_row, first_column = top * cells + i * size, left * cells + j * size
            rows = np.array([overlap(first_row, first_row + size, y) for y in range(128)])
            columns = np.array([overlap(first_column, first_column + size, x) for x in range(128)])
            expected[i, j] = rows @ mask @ columns / size**2
    found = framing.coverage(*packed(mask), one_crop(top, left, False), grid)[0, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    mirrored = framing.coverage(*packed(mask), one_crop(top, left, True), grid)[0, 0]
    np.testing.assert_array_equal(mirrored, found[:, ::-1])


def test_slots_that_were_not_found_cover_nothing():
    bits = pack_masks(np.ones((1, 1, 2, 128, 128), bool))
    framing = Framing(224, "center_crop")
    for found, share in (([True, False], 1), ([False, False], 0)):
        shares = framing.coverage(bits, np.array([[found]]), framing.middle(1), 4)
        np.testing.assert_allclose(shares, share, atol=1e-6)


def test_draws_use_the_whole_room_and_switches_change_nothing_else():
    framing = Framing(224, "center_crop")
    drawn = framing.draw(words(), 4000, flips=True, crop=True)
    for offsets in (drawn.top, drawn.left):
        assert (offsets.min(), offsets.max()) == (0, 32)
        assert abs(offsets.mean() - 16) < 0.6  # standard deviation of the mean 0.15
    assert abs(drawn.mirrored.mean() - 0.5) < 0.04
    upright = framing.draw(words(), 4000, flips=False, crop=True)
    assert not upright.mirrored.any()
    np.testing.assert_array_equal(upright.top, drawn.top)
    middle = framing.draw(words(), 4000, flips=True, crop=False)
    np.testing.assert_array_equal(middle.mirrored, drawn.mirrored)
    assert set(middle.top) == set(middle.left) == {16}
    # Without room there is one crop.
    assert set(Framing(224, "full_frame").draw(words(), 9, flips=True, crop=True).top) == {0}


# --- decoding ---


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames") / "toy"
    return make_frame_shards(folder, classes=(2, 1, 1), videos=3, size=(48, 64))


def test_clips_are_the_stored_frames_asked_for_in_their_crops(frames):
    framing = Framing(32, "center_crop")
    rows, positions = np.array([5, 0, 5]), np.array([[2, 0], [1, 1], [0, 2]])
    crops = framing.draw(words(), 3, flips=True, crop=True)
    clips = FrameClips(frames, framing, threads=3).clips(rows, positions, crops)
    assert clips.shape == (3, 2, 32, 32, 3)
    assert clips.dtype == torch.uint8
    for clip, images in enumerate(frames.images(rows)):
        for place, position in enumerate(positions[clip]):
            view = framing.view(images[position], crops, clip)
            np.testing.assert_array_equal(clips[clip, place].numpy(), view)
    alone = FrameClips(frames, framing, threads=1).clips(rows, positions, crops)
    assert torch.equal(clips, alone)


def test_a_damaged_frame_is_refused_from_any_thread(frames):
    class Damaged:
        def jpegs(self, rows):
            return [tuple(data[:50] for data in files) for files in frames.jpegs(rows)]

        def frame_sizes(self, rows):
            return frames.frame_sizes(rows)

    framing = Framing(32, "center_crop")
    clips = FrameClips(Damaged(), framing, threads=2)
    with pytest.raises(ShardError, match="a stored frame does not decode"):
        clips.clips(np.array([0]), np.array([[0, 1]]), framing.middle(1))


# --- light ---


def test_jitter_is_its_formula_for_all_frames_of_a_clip_alike():
    views = torch.randint(0, 256, (2, 3, 8, 8, 3), dtype=torch.uint8)
    factors = draw_factors(Words(Stream.JITTER, 3, 1), 2, 0.4)
    assert factors.shape == (2, 3)
    assert (abs(factors - 1) <= 0.4).all()
    changed = jitter(views, factors).numpy()
    grey = np.array([0.299, 0.587, 0.114])
    for clip, (brightness, contrast, saturation) in enumerate(factors.astype(np.float64)):
        pixels = np.clip(views[clip].numpy() * brightness, 0, 255)
        mean = (pixels @ grey).mean()
        pixels = np.clip(mean + contrast * (pixels - mean), 0, 255)
        own = (pixels @ grey)[..., None]
        expected = np.clip(own + saturation * (pixels - own), 0, 255)
        assert abs(changed[clip] - expected).max() <= 0.5 + 1e-3
    assert torch.equal(jitter(views, np.ones((2, 3), np.float32)), views)


def test_draws_of_light_are_uniform_around_one():
    factors = draw_factors(Words(Stream.JITTER, 0, 0), 2000, 0.5)
    np.testing.assert_allclose(factors.mean(axis=0), 1, atol=0.03)  # deviation of the mean 0.0065
    np.testing.assert_allclose(np.quantile(factors, [0.25, 0.75]), [0.75, 1.25], atol=0.03)


# --- settings ---


def test_encoder_settings_come_back_from_json():
    config = EncoderConfig(name="timm:resnet50", trained="last_blocks", blocks=2, rate=1e-4)
    assert encoder_config(config.to_dict()) == config
    assert replace(config, jitter=0.5).jitter == 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "timm:resnet50", "block": 2}, "unknown encoder setting 'block'; known: blocks,"),
        ({"trained": "full"}, "'name' is absent"),
        (
            {"name": "timm:resnet50", "trained": "some"},
            "^encoder.trained='some' is unknown; one of full",
        ),
        ({"name": "timm:resnet50", "blocks": 0}, "blocks=0 is out of range; 1 to 1000"),
        ({"name": "timm:resnet50", "jitter": 1.0}, "jitter=1.0 is out of range; 0 to 0.9"),
        ({"name": 5}, "^encoder.name=5 is no text"),
    ],
)
def test_encoder_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        encoder_config(values)
