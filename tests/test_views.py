import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.segmenters import Masks
from pipeline.views import (
    BASE,
    VIEW_WORDS,
    frame_phases,
    mask_window,
    oriented_masks,
    square_view,
    stored_views,
    views_named,
)


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)


def test_center_crop_is_the_middle_of_the_frame_resized_to_256(frames):
    views = square_view(frames, image_size=224)
    assert views.shape == (3, 224, 224, 3)
    whole = np.asarray(Image.fromarray(frames[1]).resize((256, 256), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(views[1], whole[16:240, 16:240])


def test_full_frame_keeps_the_borders():
    frame = np.zeros((1, 100, 200, 3), np.uint8)
    frame[:, :, :10, 0] = 255  # a red stripe at the left, 1/20 of the width
    assert square_view(frame, image_size=100, geometry="full_frame")[0, 50, 0, 0] > 200
    assert square_view(frame, image_size=100)[0, 50, 0, 0] == 0


@pytest.mark.parametrize("geometry", ["center_crop", "full_frame"])
def test_a_view_has_the_same_bytes_alone_and_among_others(frames, geometry):
    together = square_view(frames, image_size=96, geometry=geometry)
    for index in range(3):
        alone = square_view(frames[index : index + 1], image_size=96, geometry=geometry)
        np.testing.assert_array_equal(alone[0], together[index])


def test_resize_is_antialiased():
    # One-pixel stripes, shrunk fourfold: without a low-pass filter they would stay black and white.
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = 255
    view = square_view(stripes, image_size=16, geometry="full_frame")
    assert abs(view[0, 4:12, 4:12].astype(int) - 127).max() <= 8


@pytest.mark.parametrize("geometry", ["center_crop", "full_frame"])
@pytest.mark.parametrize("side", [224, 336])
def test_mask_window_covers_the_same_part_of_the_frame_as_the_view(geometry, side):
    # A ramp over the frame says where each column of the view came from.
    ramp = np.broadcast_to(np.linspace(0, 255, 512)[None, None, :, None], (1, 512, 512, 3))
    view = square_view(ramp.astype(np.uint8), image_size=side, geometry=geometry)
    window = mask_window(geometry)
    assert view[0, side // 2, 0, 0] / 255 == pytest.approx(window.start / 128, abs=0.01)
    assert view[0, side // 2, -1, 0] / 255 == pytest.approx(window.stop / 128, abs=0.01)


def test_unknown_geometry_and_wrong_frames_are_refused(frames):
    with pytest.raises(ValueError, match="unknown geometry 'fisheye'; known: center_crop, full"):
        mask_window("fisheye")
    with pytest.raises(ValueError, match=r"frames are \(3, 48, 64, 3\) float32"):
        square_view(frames.astype(np.float32), image_size=224)


# Stored views


def test_words_name_views_in_one_order():
    names = [view.name for view in stored_views(["scale", "flip", "shift"])]
    assert names == ["flip", "early", "late", "wide", "near"]
    names = [view.name for view in stored_views(["shift", "scale", "shift"], "full_frame")]
    assert names == ["early", "late", "crop", "near"]
    assert stored_views([]) == ()
    with pytest.raises(ConfigError, match="unknown view 'zoom'; known: flip, shift, scale"):
        stored_views(["flip", "zoom"])


@pytest.mark.parametrize("geometry", ["center_crop", "full_frame"])
def test_views_are_found_by_the_names_they_are_stored_under(geometry):
    views = stored_views(VIEW_WORDS, geometry)
    assert views_named([view.name for view in views[::-1]], geometry) == views[::-1]
    with pytest.raises(ConfigError, match=f"unknown stored view 'zoom' under {geometry}; known"):
        views_named(["zoom"], geometry)
    with pytest.raises(ConfigError, match="geometry 'fisheye' .*; known: center_crop, full_frame;"):
        views_named([], "fisheye")


def test_phases_are_decoded_once_each_and_the_base_first():
    assert frame_phases(stored_views(["flip", "scale"])) == (0.0,)
    assert frame_phases(stored_views(["flip", "shift", "scale"])) == (0.0, -0.25, 0.25)


@pytest.mark.parametrize("geometry", ["center_crop", "full_frame"])
@pytest.mark.parametrize("side", [224, 260, 333])
def test_every_view_shows_the_cells_of_its_mask_window(geometry, side):
    ramp = np.broadcast_to(np.linspace(0, 255, 512)[None, None, :, None], (1, 512, 512, 3))
    for view in (BASE, *stored_views(VIEW_WORDS, geometry)):
        seen = square_view(ramp.astype(np.uint8), image_size=side, geometry=geometry, view=view)
        shown = [seen[0, side // 2, 0, 0] / 255, seen[0, side // 2, -1, 0] / 255]
        window = mask_window(geometry, view)
        borders = [window.start / 128, window.stop / 128]
        assert shown == pytest.approx(borders[::-1] if view.mirrored else borders, abs=0.01)


def test_scales_show_the_whole_frame_or_less_than_the_base(frames):
    wide, near = stored_views(["scale"])
    whole = square_view(frames, image_size=96, geometry="full_frame")
    np.testing.assert_array_equal(square_view(frames, image_size=96, view=wide), whole)
    # 96 of 128 cells, centred: 16 of 128 are cut from each side.
    large = np.asarray(Image.fromarray(frames[1]).resize((128, 128), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(
        square_view(frames, image_size=96, view=near)[1], large[16:112, 16:112]
    )
    (crop, _) = stored_views(["scale"], "full_frame")
    np.testing.assert_array_equal(
        square_view(frames, image_size=112, geometry="full_frame", view=crop),
        square_view(frames, image_size=112),
    )


def test_flip_mirrors_view_and_masks_alike(frames):
    (flip,) = stored_views(["flip"])
    plain = square_view(frames, image_size=96)
    mirrored = square_view(frames, image_size=96, view=flip)
    for x in range(96):
        np.testing.assert_array_equal(mirrored[:, :, x], plain[:, :, 95 - x])
    cells = np.random.default_rng(1).random((3, 4, 128, 128)) > 0.5
    masks = Masks(
        bits=np.packbits(cells.reshape(3, 4, -1), axis=-1),
        found=np.ones((3, 4), bool),
        score=np.ones((3, 4), np.float16),
    )
    turned = oriented_masks(masks, flip)
    seen = np.unpackbits(turned.bits, axis=-1).reshape(3, 4, 128, 128)
    for x in range(128):
        np.testing.assert_array_equal(seen[..., x], cells[..., 127 - x])
    assert (turned.found is masks.found, turned.score is masks.score) == (True, True)
    for view in stored_views(["shift", "scale"]):
        assert oriented_masks(masks, view) is masks
