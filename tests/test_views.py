import numpy as np
import pytest
from PIL import Image

from pipeline.views import mask_window, square_view


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
