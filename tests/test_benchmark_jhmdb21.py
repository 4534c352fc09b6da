"""The parts of benchmarks/jhmdb21 that decide what its tables say."""

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from benchmarks.jhmdb21 import jobs as jobs_module
from benchmarks.jhmdb21.data import SHARDS, Split, inner_splits, outer_splits
from benchmarks.jhmdb21.intervals import difference
from benchmarks.jhmdb21.jobs import Job, outer_jobs
from benchmarks.jhmdb21.tables import Tables, missing_lines
from benchmarks.jhmdb21.variants import COMPARISONS, REFERENCES, VARIANTS, Variant, merged
from benchmarks.simulated_methods import answer, draw_set
from i2st_model.comparison import compare
from i2st_model.records.results import save_results

CLASSES = {
    "train": [f"a{n:02d}" for n in range(12)],
    "val": [f"b{n}" for n in range(4)],
    "test": [f"c{n}" for n in range(5)],
}


def test_folds_never_test_a_class_that_they_train_on():
    fixed, *folds = outer_splits(CLASSES)
    assert (fixed.train, fixed.test) == (tuple(CLASSES["train"]), tuple(CLASSES["test"]))
    assert [fold.name for fold in folds] == [f"fold{n}" for n in range(6)]
    for fold in folds:
        assert sorted(fold.train + fold.test) == CLASSES["train"] + CLASSES["val"]
        assert len(fold.test) == 5
    for order in (folds[:3], folds[3:]):
        assert all(not set(one.test) & set(two.test) for one, two in combinations(order, 2))
    assert {fold.test for fold in folds[:3]}.isdisjoint(fold.test for fold in folds[3:])


def test_candidates_are_compared_inside_the_train_classes_alone():
    for split in outer_splits(CLASSES):
        inner = inner_splits(split)
        assert len(inner) == 2
        for fold in inner:
            assert sorted(fold.train + fold.test) == sorted(split.train)


def test_merged_settings_keep_what_is_not_overridden():
    basis = {"episodes": 3, "network": {"dim": 64, "heads": 4}}
    assert merged(basis, {"network": {"dim": 32}, "seed": 1}) == {
        "episodes": 3,
        "network": {"dim": 32, "heads": 4},
        "seed": 1,
    }
    assert merged(basis, {}) == basis


def test_variants_name_shards_and_rows_that_exist():
    for variant in VARIANTS.values():
        assert variant.shards in SHARDS
        assert not variant.trained_as or variant.trained_as in VARIANTS
    named = {name for pair in COMPARISONS.values() for name in pair} | set(REFERENCES)
    assert named <= set(VARIANTS)


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "digest_of", lambda shards: "0" * 64)
    (tmp_path / "shards" / "base").mkdir(parents=True)
    (tmp_path / "shards" / "base" / "index.json").write_text("{}")
    variant = Variant(
        title="", rank=0, method="trx", candidates=({"fast_rate": 1.0}, {"fast_rate": 2.0})
    )
    split = outer_splits(CLASSES)[0]
    return Job(key="trx", variant=variant, split=split, seed=1, out=tmp_path)


def test_job_takes_the_candidate_that_is_best_on_its_trials(job):
    for number, trials in enumerate(job.trials):
        for trial in trials:
            assert trial in job.needs
            trial.notes.parent.mkdir(exist_ok=True)
            trial.notes.write_text(json.dumps({"accuracy": [10.0 * number, 20.0, 30.0]}))
    assert job.settings["fast_rate"] == 2.0
    assert (job.settings["method"], job.settings["seed"]) == ("trx", 1)
    assert len({trial.name for trials in job.trials for trial in trials} | {job.name}) == 5


def test_important_jobs_come_first_and_unseeded_ones_once(tmp_path):
    keys = ["i2st_views", "hyrsm", "i2st", "bi_mhm"]
    found = outer_jobs(keys, outer_splits(CLASSES)[:2], 2, tmp_path)
    assert Counter(job.key for job in found) == {**dict.fromkeys(keys, 4), "bi_mhm": 2}
    first_seed = [job.key for job in found if job.seed == 0]
    assert list(dict.fromkeys(first_seed)) == ["bi_mhm", "i2st", "hyrsm", "i2st_views"]


def simulated(seed, **effects):
    rng = np.random.default_rng(seed)
    episodes = draw_set(rng)
    return [[answer(rng, episodes, **effects)] for _ in range(2)]


def test_difference_on_one_split_has_the_intervals_of_compare():
    first, second = simulated(0, of_classes=0.4, of_videos=0.4)
    ours, theirs = difference([[(first, second)]]), compare(first, second)
    assert ours.mean == pytest.approx(theirs.difference)
    for half, name in zip(ours.halves, ("episodes", "videos", "classes"), strict=False):
        assert half == pytest.approx(theirs.intervals[name].half_width)
    assert ours.halves[3] is None


def test_difference_gains_no_certainty_about_videos_and_classes_from_testing_them_twice():
    pair = tuple(simulated(1, of_classes=0.4, of_videos=0.4))
    once, twice = difference([[pair]]), difference([[pair], [pair]])
    assert twice.mean == pytest.approx(once.mean)
    assert twice.halves[0] == pytest.approx(once.halves[0] / 2**0.5)
    assert twice.halves[1:] == pytest.approx(once.halves[1:])


def test_difference_over_folds_knows_that_classes_of_one_fold_may_be_easier_than_of_another():
    """Two folds that differ by 20 points leave the mean of other classes open by more."""
    folds = []
    for number, ease in enumerate((1.0, 2.5)):
        rng = np.random.default_rng(number)
        drawn = draw_set(rng, classes=5)
        episodes = replace(
            drawn,
            class_names=tuple(f"{number}{name}" for name in drawn.class_names),
            video_ids=tuple(f"{number}{name}" for name in drawn.video_ids),
        )
        folds.append(([answer(rng, episodes, ease=ease)], [answer(rng, episodes, ease=1.5)]))
    apart = [difference([[fold]]).mean for fold in folds]
    both = difference([folds])
    assert apart[1] - apart[0] > 20
    assert both.mean == pytest.approx(np.mean(apart))
    assert both.halves[2] > (apart[1] - apart[0]) / 4


def test_difference_over_seeds_is_students_interval():
    """Two seeds that differ by d: t of one degree of freedom is 12.706, so 12.706 |d| / 2."""
    rng = np.random.default_rng(2)
    episodes = draw_set(rng)
    seeds = [answer(rng, episodes), answer(rng, episodes, ease=1.8)]
    reference = [answer(rng, episodes)]
    apart = 100 * abs(seeds[0].correct.mean() - seeds[1].correct.mean())
    found = difference([[(seeds, reference)]])
    assert found.halves[3] == pytest.approx(12.706 * apart / 2, rel=1e-3)


def test_tables_say_what_is_missing(job, tmp_path):
    splits = [Split(name="fixed", train=("a",), test=("b",)), *outer_splits(CLASSES)[1:3]]
    rng = np.random.default_rng(3)
    episodes = draw_set(rng, episodes=50)
    result = answer(rng, episodes)
    worse = answer(rng, episodes, ease=0.5)
    for key, found in (("bi_mhm", result), ("simpleshot", worse)):
        for one in outer_jobs([key], splits[:2], 1, tmp_path):
            one.result.parent.mkdir(exist_ok=True)
            one.notes.write_text(json.dumps({"accuracy": [0.0] * 3, "train_seconds": 0.0}))
            save_results(one.result, [found] * 3)
    text = Tables(["bi_mhm", "simpleshot", "otam"], splits, 1, tmp_path).markdown()
    ours, theirs = (100 * one.correct.mean() for one in (result, worse))
    means, lead = f"{ours:.1f} | {ours:.1f} | {ours:.1f}", f"{theirs - ours:+.1f}"
    assert f"| bi_mhm | {means} | - | - | - | 1/1 |" in text
    assert f"| bi_mhm | {means} | - | - | - | 1/2 |" in text
    assert f"| {lead} / {lead} / {lead} | - | - | 1/2 |" in text
    assert "otam" not in text
    assert missing_lines(outer_jobs(["otam"], splits[1:], 1, tmp_path)) == [
        "2 of 2 results are missing",
        "missing: otam 2 of 2 jobs, - s of training",
    ]
