"""The motion benchmark's data: order is all that tells its classes apart; and its table's cells."""

import numpy as np
import pytest

from benchmarks.motion import cell
from benchmarks.motion_data import NUM_STATES, Motion, MotionConfig, make_motion_shards, motions
from i2st_model.features import FeatureStore
from pipeline.shards.reader import ShardReader


def test_motions_visit_every_state_once_and_no_two_in_one_order():
    classes = [motion for some in motions(0).values() for motion in some]
    assert len(classes) == 32
    assert len({tuple(motion.states) for motion in classes}) == 32
    assert all(sorted(motion.states) == list(range(NUM_STATES)) for motion in classes)


def test_motion_and_its_reverse_are_in_one_split():
    for some in motions(3).values():
        orders = {tuple(motion.states) for motion in some}
        assert orders == {order[::-1] for order in orders}


def test_motion_of_speed_three_goes_round_the_ring():
    assert Motion(start=2, speed=3).states == [2, 5, 0, 3, 6, 1, 4, 7]
    assert Motion(start=2, speed=3).backwards() == Motion(start=7, speed=5)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion") / "shards"
    make_motion_shards(folder, MotionConfig(videos=3, background=0.0, jitter=0.0, signal=50.0))
    return ShardReader(folder)


def test_videos_of_two_classes_differ_in_the_order_of_their_frames_alone(reader):
    rows = [int(np.flatnonzero(reader.class_index == number)[0]) for number in (0, 1)]
    first, second = (reader.frame_embedding([row])[0].astype(float) for row in rows)
    nearest = np.array([[frame @ other for other in second] for frame in first]).argmax(axis=1)
    # The second class of a split is the first one backwards.
    assert nearest.tolist() == list(range(NUM_STATES))[::-1]
    means = [clip.mean(axis=0) for clip in (first, second)]
    assert np.abs(means[0] - means[1]).max() < 1 < np.abs(first - second).max()


def test_masks_mark_the_cells_that_show_the_state(reader):
    store = FeatureStore(reader)
    rows = store.rows_of(store.classes_of("train"))[:4]
    coverage, valid = store.mask_targets(rows, 4)
    assert valid.all()
    assert set(coverage.unique().tolist()) == {0.0, 1.0}
    assert coverage.sum(dim=(2, 3)).unique().tolist() == [4.0]
    size = store.tokens(rows).norm(dim=-1).unflatten(2, (4, 4))
    assert size[coverage == 1].min() > size[coverage == 0].max()


def test_what_an_interrupted_call_left_is_written_anew(tmp_path):
    left, whole = tmp_path / "left", tmp_path / "whole"
    config = MotionConfig(videos=1)
    for folder in (left, whole):
        make_motion_shards(folder, config)
    (left / "index.json").unlink()
    (left / "shard-00003.h5").write_bytes(b"half a shard")
    make_motion_shards(left, config)
    for path in whole.iterdir():
        assert (left / path.name).read_bytes() == path.read_bytes()


def test_cell_has_the_half_width_of_the_mean_over_seeds():
    # Episodes 0, 1, 0, 1 and 1, 0, 0, 1: means 50 and 50, of each episode 50, 50, 0, 100.
    seeds = [np.array([0.0, 1, 0, 1]), np.array([1.0, 0, 0, 1])]
    half = 1.96 * 100 * (0.5 / 3) ** 0.5 / 2
    assert cell(seeds) == f"50.0 +/- {half:.1f}, s.d. 0.0"
    # Alone, an episode's spread is larger and there is none over seeds.
    assert cell(seeds[:1]) == f"50.0 +/- {1.96 * 100 * (1 / 3) ** 0.5 / 2:.1f}"
    assert cell([seeds[0], np.ones(4)]).endswith(f"s.d. {50 / 2**0.5:.1f}")
