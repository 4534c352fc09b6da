import numpy as np
import pytest

from i2st_model.statistics import mean_accuracy, paired_difference


def test_mean_accuracy_is_percent_with_the_normal_half_width():
    # By hand: mean 0.6; deviations .4 -.2 -.2 .0 give s^2 = .24 / 3 = .08; 1.96 sqrt(.08 / 4).
    accuracy = mean_accuracy([1.0, 0.4, 0.4, 0.6])
    assert accuracy.mean == pytest.approx(60.0)
    assert accuracy.half_width == pytest.approx(100 * 1.96 * (0.08 / 4) ** 0.5)
    assert str(accuracy) == "60.00 +/- 27.72"


def test_mean_accuracy_interval_covers_the_truth_19_times_in_20():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(1000):
        accuracy = mean_accuracy(rng.binomial(5, 0.7, size=400) / 5)
        covered += abs(accuracy.mean - 70.0) <= accuracy.half_width
    assert 930 <= covered <= 970  # 950 expected, standard deviation 7


def test_mean_accuracy_refuses_one_episode():
    with pytest.raises(ValueError, match=r"shape \(1,\); at least 2"):
        mean_accuracy([0.5])


def test_paired_difference_is_narrower_than_either_mean_when_difficulty_is_shared():
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0.2, 0.8, size=1000)
    first, second = difficulty + 0.02, difficulty + rng.normal(0, 0.01, size=1000)
    difference = paired_difference(first, second)
    assert difference.mean == pytest.approx(100 * (first - second).mean())
    assert difference.half_width == pytest.approx(196 * (first - second).std(ddof=1) / 1000**0.5)
    assert difference.half_width < mean_accuracy(first).half_width / 10


def test_paired_difference_refuses_different_lengths():
    with pytest.raises(ValueError, match="3 and 2 episodes"):
        paired_difference(np.zeros(3), np.zeros(2))
