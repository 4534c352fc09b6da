"""Paired differences and their intervals: by hand, by written-out sums, and by simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.false_positives import EFFECTS, false_positives
from benchmarks.simulated_methods import answer, draw_set
from i2st_model.comparing.bootstrap import class_half_width, student_quantile
from i2st_model.comparing.clusters import Gains, class_scores, gains_of, lost_to
from i2st_model.comparing.comparison_table import comparison_table
from i2st_model.comparing.folds import join_folds
from i2st_model.comparing.pairing import require_pairs
from i2st_model.comparison import compare
from i2st_model.records.results import Result
from i2st_model.statistics import Interval, seed_interval, t_quantile
from pipeline.errors import ConfigError


def pair(seed, *, effects=EFFECTS, **shape):
    rng = np.random.default_rng(seed)
    episodes = draw_set(rng, **shape)
    return tuple(answer(rng, episodes, name=name, **effects) for name in "ab")


# --- Student's law ---


def test_t_quantile_is_that_of_printed_tables():
    printed = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 9: 2.262, 23: 2.069, 120: 1.980}
    for degrees, value in printed.items():
        assert t_quantile(degrees) == pytest.approx(value, abs=5e-4)


def test_seed_interval_by_hand():
    # Differences 1, 2, 3 points: mean 2, s = 1, t = 4.303, half 4.303 / sqrt(3) = 2.484.
    found = seed_interval([0.01, 0.02, 0.03])
    assert (found.mean, found.half_width) == (pytest.approx(2), pytest.approx(2.484, abs=1e-3))
    assert seed_interval([0.01]) is None
    assert str(Interval(mean=2, low=-0.484, high=4.484)) == "+2.00 [-0.48, +4.48]"


# --- scores ---


def hand_made(predicted, *, queries=2):
    """Two 3-way 1-shot episodes of classes 0, 1, 2 in this order, with videos of their own."""
    clips = 1 + queries
    rows = np.arange(3 * 4 * clips).reshape(3, 4 * clips)  # four times as many as an episode takes
    first = rows[:, :clips]
    second = rows[:, clips : 2 * clips]
    both = np.stack([first, second])
    made = draw_set(np.random.default_rng(0), classes=3, videos=4 * clips, way=3, episodes=2)
    episodes = replace(made, support=both[:, :, :1], query=both[:, :, 1:])
    made_by = answer(np.random.default_rng(0), episodes).made_by
    return Result(made_by=made_by, episodes=episodes, predicted=np.array(predicted))


def test_lost_queries_are_those_that_luce_expects_right_without_the_named_class():
    # Of each class 1 query in 4 is right. Without one of the two wrong classes 1/4 right ones are
    # left beside half of 3/4 wrong ones: 0.4 of the queries that were drawn away would be right.
    result = hand_made([[[0, 1], [2, 2], [0, 0]], [[1, 2], [0, 1], [2, 1]]])
    np.testing.assert_allclose(lost_to(result), 0.4 * np.array([[2, 1, 2], [1, 2, 1]]))
    assert gains_of([result], [result]).returned == pytest.approx(0.4)


def test_two_ways_lose_every_wrong_query_to_the_other():
    rng = np.random.default_rng(0)
    result = answer(rng, draw_set(rng, way=2, classes=4, episodes=50))
    wrong = (~result.correct).sum(axis=2)
    np.testing.assert_allclose(lost_to(result), wrong[:, ::-1])
    never = replace(result, predicted=1 - np.broadcast_to([[0], [1]], result.predicted.shape))
    np.testing.assert_allclose(lost_to(never), np.ones((50, 2)))
    assert gains_of([result], [never]).returned == pytest.approx(1)


def test_class_scores_sum_to_nothing_and_follow_a_written_out_loop():
    first, second = pair(0, episodes=40, classes=7, queries=2)
    gains = gains_of([first], [second])
    scores, by_chance = class_scores(gains)
    classes, lost = first.episodes.classes, lost_to(second) - lost_to(first)
    own = first.correct.astype(float) - second.correct
    expected, chance = np.zeros(7), 0.0
    for e in range(40):
        total = 0.0
        for n in range(5):
            asked = sum(own[e, n, i] - own.mean() for i in range(2))
            score = asked + lost[e, n] - lost.mean()
            expected[classes[e, n]] += score
            chance += score**2
            total += asked
        chance -= total**2
    np.testing.assert_allclose(scores, expected, atol=1e-9)
    assert by_chance == pytest.approx(chance)
    assert scores.sum() == pytest.approx(0, abs=1e-9)
    assert gains.mean == pytest.approx(own.mean())


def test_scores_of_two_ways_show_less_than_what_a_class_does_and_its_interval_makes_up_for_it():
    # Every pair of eight classes once; each class adds its effect to both queries of its episodes.
    effects = np.random.default_rng(0).normal(scale=0.1, size=8)
    pairs = np.array([(a, b) for a in range(8) for b in range(a)])
    made = draw_set(np.random.default_rng(0), classes=8, way=2, episodes=28)
    clips = made.support % 30 + 30 * pairs[:, :, None]
    episodes = replace(made, support=clips, query=(clips + 1) % 30 + 30 * pairs[:, :, None])
    own = np.repeat(effects[pairs].sum(axis=1), 2).reshape(28, 2, 1)
    gains = Gains(
        episodes=episodes, own=own, drawn=own[:, ::-1, 0], returned=1.0, sources=np.arange(240)
    )
    scores, _ = class_scores(gains)
    does = 2 * 7 * (effects - effects.mean())  # on two queries of each of seven episodes
    np.testing.assert_allclose(scores, 6 / 7 * does)
    whole = math.sqrt(8 / 7 * (does**2).sum()) * student_quantile(scores)
    assert class_half_width(scores, 0.0, gains.returned) == pytest.approx(whole)


def test_seeds_of_a_side_are_averaged():
    (first, second), (third, fourth) = pair(0, episodes=60), pair(0, episodes=60)
    other = replace(third, predicted=fourth.predicted)
    two, ones = (
        gains_of([first, other], [second]),
        [gains_of([r], [second]) for r in (first, other)],
    )
    np.testing.assert_allclose(two.own, (ones[0].own + ones[1].own) / 2)
    np.testing.assert_allclose(two.drawn, (ones[0].drawn + ones[1].drawn) / 2)


# --- bootstrap ---


def test_student_quantile_follows_a_written_out_bootstrap():
    scores = np.random.default_rng(0).exponential(size=12)
    draws = np.random.default_rng(7).multinomial(12, np.full(12, 1 / 12), size=300)
    students = []
    for draw in draws:
        values = np.repeat(scores, draw)
        error = values.std(ddof=1) / math.sqrt(12)
        students.append(abs(values.mean() - scores.mean()) / error)
    expected = np.quantile(students, 0.95, method="higher")
    assert student_quantile(scores, rounds=300, seed=7) == pytest.approx(expected)


def test_quantile_is_students_where_one_class_alone_differs():
    scores = np.array([3.0, -3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # rounds of zeros alone: 10 %
    assert student_quantile(scores) == pytest.approx(2.365, abs=1e-3)


def test_class_half_width_needs_four_classes_and_some_spread():
    assert class_half_width(np.array([1.0, -1.0, 0.0]), 0.0, 1.0) is None
    assert class_half_width(np.zeros(6), 0.0, 1.0) == 0.0
    # Squares sum to 17.5; what is taken off of them is at most half.
    for by_chance, left in ((0.0, 17.5), (5.0, 12.5), (15.0, 8.75), (-5.0, 22.5)):
        found = class_half_width(np.arange(6.0) - 2.5, by_chance, 0.5)
        quantile = student_quantile(np.arange(6.0) - 2.5)
        assert found == pytest.approx(quantile * math.sqrt(6 / 5 * left) / 0.9)


# --- comparisons ---


def test_compare_says_that_no_query_differs_where_none_does():
    first, _ = pair(0, episodes=100)
    found = compare([first], [first])
    assert found.difference == 0
    assert found.intervals == dict.fromkeys(("episodes", "videos", "classes", "seeds"))
    why = "no query differs, both sides are right on the same ones"
    assert found.why_not == dict.fromkeys(("episodes", "videos", "classes"), why)
    notes = comparison_table(("a", "b"), [first.episodes], [found]).notes
    assert f"no interval over episodes, videos, classes: {why}." in notes


def test_what_differs_by_the_same_everywhere_has_no_interval():
    first, second = pair(0, episodes=100)
    right = np.broadcast_to(np.arange(5)[None, :, None], first.predicted.shape)
    one_wrong = right.copy()
    one_wrong[:, 0] = (
        1  # of 5 queries one: 20 points in every episode, and no pair of seeds differs
    )
    sides = [[replace(r, predicted=p) for r in (first, second)] for p in (right, one_wrong)]
    found = compare(*sides)
    assert found.difference == pytest.approx(20)
    assert found.intervals["episodes"] is found.intervals["seeds"] is None
    assert found.why_not["episodes"] == "every episode differs by the same"
    assert found.why_not["seeds"] == "every pair of trainings differs by the same"


def test_compare_turns_around_with_its_sides():
    first, second = pair(1, episodes=300)
    one, other = compare([first], [second]), compare([second], [first])
    assert one.difference == -other.difference
    for name in ("episodes", "videos", "classes"):
        assert one.intervals[name].low == pytest.approx(-other.intervals[name].high)
    assert one.first == other.second
    half = [one.intervals[name].half_width for name in ("episodes", "videos", "classes")]
    assert half == sorted(half)
    json_values = one.to_json()
    assert json_values["intervals"]["seeds"] is None
    assert json_values["uses_class_names"] == [False, False]
    assert json_values["why_not"] == {}  # nothing was trained
    trained = replace(first, made_by=replace(first.made_by, run="a", train_seed=0))
    assert "pass runs with other seeds" in compare([trained], [second]).why_not["seeds"]


def test_wider_questions_have_intervals_that_are_never_narrower(monkeypatch):
    first, second = pair(1, episodes=300)
    monkeypatch.setattr("i2st_model.comparing.intervals.class_half_width", lambda *_: 1e-9)
    found = compare([first], [second]).intervals
    assert found["classes"].half_width == pytest.approx(found["videos"].half_width)
    monkeypatch.setattr("i2st_model.comparing.intervals.source_variance", lambda _: 1e-12)
    found = compare([first], [second]).intervals
    assert found["videos"] == found["classes"] == found["episodes"]


def test_a_side_of_one_training_beside_several_is_pointed_out():
    rng = np.random.default_rng(0)
    episodes = draw_set(rng, episodes=50)
    several = [answer(rng, episodes) for _ in range(2)]
    untrained = answer(rng, episodes)
    one = replace(untrained, made_by=replace(untrained.made_by, run="x", train_seed=0))
    for sides, told in ((([one], several), "A"), ((several, [one]), "B")):
        notes = comparison_table(("a", "b"), [episodes], [compare(*sides)]).notes
        note = f"{told} is one training, whose own luck is not in the interval over seeds."
        assert note in notes
    for sides in (([untrained], several), (several, several), ([one], [one])):
        notes = comparison_table(("a", "b"), [episodes], [compare(*sides)]).notes
        assert not any("own luck" in note for note in notes)


def test_comparison_table_marks_the_side_that_knows_names():
    first, second = pair(1, episodes=300)
    knowing = replace(second, made_by=replace(second.made_by, uses_class_names=True))
    found = compare([first], [knowing])
    table = comparison_table(("a", "b"), [first.episodes], [found])
    assert [row.label for row in table.rows] == [
        "A: a",
        "B: b*",
        *(f"A - B, over {name}" for name in ("episodes", "videos", "classes")),
    ]
    assert [row.cells for row in table.rows[:2]] == [(found.first,), (found.second,)]


@pytest.mark.parametrize(
    ("typed", "method", "runs", "label"),
    [
        ("otam", "otam", 0, "A: otam"),
        ("p.res", "protonet", 0, "A: protonet (p.res)"),
        ("p.res@otam", "otam", 0, "A: otam (p.res)"),
        ("i2st", "i2st", 1, "A: i2st"),
        ("runs/a0", "i2st", 1, "A: i2st (runs/a0)"),
        ("p.res", "i2st", 3, "A: i2st (p.res, 3 seeds)"),
        (",".join(f"/a/long/way/to/runs/{n}" for n in range(3)), "i2st", 3, "A: i2st (3 seeds)"),
        ("/an/absolute/path/to/results/of/x/p.res", "trx", 0, "A: trx (%s)"),
        ("/an/absolute/path/to/results/of/xy/p.res", "trx", 0, "A: trx (%s)"),
        ("/an/absolute/path/to/results/of/xyz/p.res", "trx", 0, "A: trx (...%s)"),
    ],
)
def test_a_side_is_named_by_its_method_and_briefly_by_where_it_is_from(typed, method, runs, label):
    first, second = pair(1, episodes=20)
    made_by = replace(first.made_by, method=method)
    each = [replace(made_by, run=f"a{n}", train_seed=n) for n in range(runs)] or [made_by]
    found = compare([replace(first, made_by=one) for one in each], [second])
    table = comparison_table((typed, "b"), [first.episodes], [found])
    end = typed[-37:] if "..." in label else typed
    assert table.rows[0].label == (label % end if "%" in label else label)
    assert len(table.rows[0].label) <= len("A: ") + len(method) + 43
    assert found.to_json()["methods"] == [method, "b"]


def test_compare_pairs_seeds_in_order():
    rng = np.random.default_rng(0)
    episodes = draw_set(rng, episodes=200)
    first = [answer(rng, episodes, ease=2.0) for _ in range(3)]
    second = [answer(rng, episodes) for _ in range(3)]
    found = compare(first, second)
    differences = [
        100 * (a.correct.mean() - b.correct.mean()) for a, b in zip(first, second, strict=True)
    ]
    half = 4.303 * np.std(differences, ddof=1) / math.sqrt(3)
    assert found.intervals["seeds"].mean == pytest.approx(np.mean(differences))
    assert found.intervals["seeds"].half_width == pytest.approx(half, rel=1e-3)
    assert found.difference == pytest.approx(np.mean(differences))
    assert compare(first, second[:1]).num_seeds == 3


def test_seeds_that_cannot_be_paired_are_refused():
    with pytest.raises(ConfigError, match="3 runs beside 2; as many on both sides, or one"):
        require_pairs(3, 2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"shot": 2}, "100 5-way 1-shot of .* and 100 5-way 2-shot of"),
        ({"episodes": 90}, "100 5-way .* and 90 5-way"),
        ({}, "seed 0, but of other clips"),
    ],
)
def test_compare_says_how_episodes_differ(shape, message):
    (first, _), (_, second) = pair(0, episodes=100), pair(1, **{"episodes": 100, **shape})
    with pytest.raises(ConfigError, match=f"on different episodes .*{message}.*--episode-file"):
        compare([first], [second])


# --- A/A: two methods of equal true accuracy ---


def shares(simulations, effects, **shape):
    found = false_positives(simulations, effects, **shape)
    return {name: share for name, (share, _) in found.items()}


def test_interval_over_classes_holds_where_that_over_episodes_fails():
    found = shares(150, EFFECTS, episodes=600, classes=12)
    assert found["classes"] <= 0.11  # 0.05 expected; 0.018 is one standard deviation
    assert found["episodes"] > 0.3


def test_interval_over_videos_holds_where_classes_do_not_differ():
    found = shares(150, {"of_videos": 1.0}, episodes=1000)
    assert found["videos"] <= 0.11
    assert found["episodes"] > 0.15


@pytest.mark.parametrize("seeds", [3, 5])
def test_interval_over_seeds_holds_where_trainings_differ_by_luck(seeds):
    found = shares(300, EFFECTS, episodes=200, seeds=seeds)
    assert found["seeds"] == pytest.approx(0.05, abs=0.04)  # 0.013 is one standard deviation


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_false_positives_over_classes_are_5_percent():
    found = [shares(1000, EFFECTS, classes=classes) for classes in (10, 16, 24)]
    mean = np.mean([one["classes"] for one in found])
    assert mean == pytest.approx(0.05, abs=0.01)  # 0.004: luck of 3,000
    for one in found:
        assert one["classes"] == pytest.approx(0.045, abs=0.025)  # 0.029 of 10, 0.061 of 24
        assert one["episodes"] > 0.4


@pytest.mark.slow
def test_false_positives_over_classes_are_5_percent_at_2_way():
    found = [shares(2000, EFFECTS, classes=classes, way=2) for classes in (10, 16, 24)]
    assert np.mean([one["classes"] for one in found]) == pytest.approx(0.055, abs=0.01)


# --- folds ---


def fold(seed, number):
    """Two methods on six classes whose names no other fold has, at the end or front of the list."""
    results = []
    for result in pair(seed, classes=6, episodes=200):
        mine = result.episodes
        names = {name: f"{'zxya'[number]}{name}" for name in mine.class_names}
        renamed = replace(
            mine,
            class_names=tuple(names.values()),
            video_ids=tuple(names[one.split("/")[0]] + one[4:] for one in mine.video_ids),
        )
        results.append(replace(result, episodes=renamed))
    return results


def test_joined_folds_keep_every_clip_and_answer():
    folds = [fold(seed, seed) for seed in range(4)]
    (first, second) = (join_folds([own[side] for own in folds]) for side in range(2))
    assert len(first.episodes.class_names) == 24
    at = 0
    for own in folds:
        for e in range(0, 200, 40):
            mine, all_of_them = own[0].episodes, first.episodes
            ids = np.array(mine.video_ids)[mine.support[e]]
            assert (np.array(all_of_them.video_ids)[all_of_them.support[at + e]] == ids).all()
            names = np.array(mine.class_names)[mine.classes[e]]
            assert (np.array(all_of_them.class_names)[all_of_them.classes[at + e]] == names).all()
        at += 200
    found = compare([first], [second])
    means = [compare([a], [b]).difference for a, b in folds]
    assert found.difference == pytest.approx(np.mean(means))
    assert found.num_classes == 24
    one = compare([folds[0][0]], [folds[0][1]])
    assert found.intervals["classes"].half_width < one.intervals["classes"].half_width


def test_joined_folds_keep_the_sources_of_each():
    folds = [fold(seed, seed)[0] for seed in range(2)]
    known = replace(folds[1], video_source=np.arange(180) // 5)
    joined = join_folds([folds[0], known])
    ids = np.array(joined.episodes.video_ids)
    for one in (folds[0], known):
        places = np.searchsorted(ids, one.episodes.video_ids)
        sources = joined.sources[places]
        assert (sources[:, None] == sources).tolist() == (
            one.sources[:, None] == one.sources
        ).tolist()
    assert len(np.unique(joined.sources)) == 180 + 36
    assert join_folds(folds).video_source is None


def test_folds_that_share_a_class_are_refused():
    (first, _), (other, _) = fold(0, 0), fold(1, 0)
    with pytest.raises(ValueError, match="a class is named twice"):
        join_folds([first, other])
