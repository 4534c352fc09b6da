"""sam_clip with real weights on pictures that scikit-image brings along."""

import os
from pathlib import Path

import numpy as np
import pytest
from colour_scenes import scene_clip
from skimage import data

from pipeline.masks import unpack_masks
from pipeline.segmenters import get_segmenter

pytestmark = pytest.mark.weights

# Points (x, y) read off a grid laid over each picture: inside, outside; share of the area.
THINGS = {
    ("astronaut", "person"): (
        [(222, 110), (110, 330), (320, 290)],
        [(480, 60), (30, 60), (110, 60), (415, 60)],
        (0.25, 0.60),
    ),
    ("astronaut", "helmet"): ([(400, 430)], [(222, 110), (110, 330)], (0.08, 0.25)),
    ("astronaut", "flag"): ([(30, 60)], [(222, 110), (480, 60)], (0.03, 0.20)),
    ("astronaut", "space shuttle"): (
        [(415, 60)],
        [(222, 110), (250, 30)],
        (0.03, 0.15),
    ),
    ("chelsea", "cat"): (
        [(170, 110), (260, 240), (200, 40)],
        [(430, 60), (430, 250)],
        (0.50, 0.90),
    ),
    ("coffee", "cup"): (
        [(250, 40), (230, 235)],
        [(560, 60), (30, 330), (110, 200)],
        (0.10, 0.35),
    ),
    ("coffee", "saucer"): ([(110, 200), (440, 250)], [(560, 60), (30, 330)], (0.10, 0.60)),
    ("coffee", "spoon"): ([(365, 290)], [(560, 60), (290, 150)], (0.01, 0.08)),
    ("rocket", "rocket"): (
        [(322, 200), (322, 300)],
        [(200, 100), (60, 100), (500, 200)],
        (0.01, 0.06),
    ),
    ("stereo_motorcycle", "motorcycle"): (
        [(420, 205), (362, 330), (134, 313)],
        [(50, 460), (260, 50), (560, 70), (100, 180)],
        (0.20, 0.50),
    ),
}


@pytest.fixture(scope="module")
def segmenter():
    files = [os.environ.get(f"I2ST_{name}_CHECKPOINT", "") for name in ("SAM", "CLIP")]
    if not all(Path(file).is_file() for file in files):
        pytest.skip("no real weights: set I2ST_SAM_CHECKPOINT and I2ST_CLIP_CHECKPOINT to files")
    return get_segmenter(f"sam_clip:{files[0]},ViT-B-16-quickgelu/{files[1]}")


def picture_of(name):
    loaded = getattr(data, name)()
    # Of a stereo pair, the left picture.
    return np.ascontiguousarray((loaded[0] if isinstance(loaded, tuple) else loaded)[..., :3])


@pytest.mark.parametrize(("name", "noun"), THINGS)
def test_the_named_thing_is_found_where_it_is(segmenter, name, noun):
    inside, outside, (low, high) = THINGS[name, noun]
    frame = picture_of(name)
    masks = segmenter.segment([scene_clip([frame], actor=(noun,))])[0]
    assert masks.found[0, 0]
    cells = unpack_masks(masks.bits)[0, 0]

    def at(point):
        return cells[point[1] * 128 // frame.shape[0], point[0] * 128 // frame.shape[1]]

    assert all(at(point) for point in inside)
    assert not any(at(point) for point in outside)
    assert low <= cells.mean() <= high


@pytest.mark.parametrize("name", sorted({name for name, _ in THINGS}))
@pytest.mark.parametrize("noun", ["elephant", "submarine"])
def test_what_is_absent_is_not_found(segmenter, name, noun):
    clip = scene_clip([picture_of(name)], actor=(noun,))
    assert not segmenter.segment([clip])[0].found.any()
