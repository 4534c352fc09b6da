from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips import (
    FRAME_RULES,
    clip_positions,
    frame_chooser,
    segment_centres,
    uniform_endpoints,
)
from pipeline.errors import ConfigError

lengths = st.integers(1, 100_000)
counts = st.integers(1, 64)


@given(lengths, counts)
def test_segment_centres_are_the_frames_under_the_centres_of_equal_segments(num_frames, count):
    length = Fraction(num_frames, count)
    expected = [floor((segment + Fraction(1, 2)) * length) for segment in range(count)]
    assert segment_centres(num_frames, count).tolist() == expected


def test_segment_centres_of_a_hand_made_case():
    # 40 frames, 8 segments of 5: the middle of 0..4 is 2, of 5..9 is 7, and so on.
    assert segment_centres(40, 8).tolist() == [2, 7, 12, 17, 22, 27, 32, 37]


def test_segment_centres_repeat_frames_when_the_video_is_short():
    assert segment_centres(3, 8).tolist() == [0, 0, 0, 1, 1, 2, 2, 2]


@given(lengths, st.integers(2, 64))
def test_uniform_endpoints_lie_within_half_a_frame_of_equal_distances(num_frames, count):
    indices = uniform_endpoints(num_frames, count)
    step = Fraction(num_frames - 1, count - 1)
    assert indices[0] == 0
    assert indices[-1] == num_frames - 1
    assert all(abs(int(i) - n * step) <= Fraction(1, 2) for n, i in enumerate(indices))


def test_uniform_endpoints_take_the_middle_frame_when_one_is_wanted():
    assert uniform_endpoints(9, 1).tolist() == [4]


@given(st.sampled_from(sorted(FRAME_RULES)), lengths, counts)
def test_every_rule_gives_ordered_indices_inside_the_video(rule, num_frames, count):
    indices = frame_chooser(rule, count)(num_frames)
    assert indices.dtype == np.int32
    assert indices.shape == (count,)
    assert (np.diff(indices) >= 0).all()
    assert 0 <= indices[0] <= indices[-1] < num_frames


def test_frame_chooser_lists_the_rules_when_the_name_is_unknown():
    with pytest.raises(ConfigError, match="'middle'; known: segment_centres, uniform_endpoints"):
        frame_chooser("middle", 8)


def test_frame_chooser_refuses_clips_without_frames():
    with pytest.raises(ConfigError, match="0 frames per video; at least 1"):
        frame_chooser("segment_centres", 0)


def test_clip_positions_are_all_stored_frames_when_the_clip_takes_them_all():
    assert clip_positions(8, 8).tolist() == list(range(8))


def test_clip_positions_take_every_fourth_pair_of_sixteen():
    # Four segments of 4 stored frames; a centre between two frames takes the later one.
    assert clip_positions(16, 4).tolist() == [2, 6, 10, 14]


@given(st.integers(1, 64), st.data())
def test_clip_positions_never_repeat(num_stored, data):
    num_frames = data.draw(st.integers(1, num_stored))
    assert (np.diff(clip_positions(num_stored, num_frames)) > 0).all()


def test_clip_positions_name_both_counts_when_too_few_are_stored():
    with pytest.raises(ConfigError, match=r"clips of 16 frames .* store 8 .*`--frames 16`"):
        clip_positions(8, 16)


def test_rules_refuse_an_empty_video():
    with pytest.raises(ValueError, match="num_frames=0"):
        segment_centres(0, 8)


# Phases


@given(lengths, counts, st.sampled_from([-0.25, 0.25]) | st.floats(-0.5, 0.5, exclude_max=True))
def test_phase_moves_segment_centres_by_its_share_of_a_segment(num_frames, count, phase):
    length = Fraction(num_frames, count)
    expected = [
        floor((segment + Fraction(1, 2) + Fraction(phase)) * length) for segment in range(count)
    ]
    assert segment_centres(num_frames, count, phase).tolist() == expected
    assert 0 <= expected[0] <= expected[-1] < num_frames


def test_quarter_phases_of_a_hand_made_case():
    # Segments of 8 frames: centres at 4, 12; a quarter of a segment is 2 frames.
    assert segment_centres(16, 2).tolist() == [4, 12]
    assert segment_centres(16, 2, -0.25).tolist() == [2, 10]
    assert segment_centres(16, 2, 0.25).tolist() == [6, 14]
    # Distances of 4 frames; the first cannot come earlier, the last not later.
    assert uniform_endpoints(13, 4).tolist() == [0, 4, 8, 12]
    assert uniform_endpoints(13, 4, -0.25).tolist() == [0, 3, 7, 11]
    assert uniform_endpoints(13, 4, 0.25).tolist() == [1, 5, 9, 12]
    assert uniform_endpoints(13, 1, 0.25).tolist() == [9]


@given(lengths, counts, st.sampled_from([-0.25, 0.0, 0.1, 0.25]))
def test_phase_moves_uniform_endpoints_by_its_share_of_a_distance(num_frames, count, phase):
    last = num_frames - 1
    step = Fraction(last, max(1, count - 1))
    for i, index in enumerate(uniform_endpoints(num_frames, count, phase)):
        exact = (i * step if count > 1 else Fraction(last, 2)) + Fraction(phase) * step
        off = abs(int(index) - min(max(exact, 0), last))
        assert off <= Fraction(1, 2) if count > 1 else off < 1
        assert 0 <= index <= last


@given(st.sampled_from(sorted(FRAME_RULES)), lengths, counts)
def test_chooser_lists_the_frames_of_one_phase_after_the_other(rule, num_frames, count):
    chosen = frame_chooser(rule, count, (0.0, -0.25, 0.25))(num_frames)
    assert chosen.dtype == np.int32
    base, early, late = chosen.reshape(3, count)
    assert base.tolist() == frame_chooser(rule, count)(num_frames).tolist()
    assert (early <= base).all()
    assert (base <= late).all()
    assert early[0] >= 0
    assert late[-1] < num_frames


@pytest.mark.parametrize("phase", [0.5, -0.6, float("nan")])
def test_rules_refuse_a_phase_outside_the_segment(phase):
    with pytest.raises(ValueError, match=f"phase={phase} must lie in"):
        segment_centres(9, 3, phase)
