import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations, permutations
from multiprocessing import get_context

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from i2st_model.drawing.class_videos import ClassVideos, group_videos, number_groups
from i2st_model.drawing.draws import Stream, Words
from i2st_model.episodes import EpisodeSampler
from i2st_model.training.pools import PoolSampler, draw_clips
from pipeline.errors import ConfigError

NAMES = ["cut", "fold", "lift", "pour", "spin", "wave"]


def class_videos(sizes, groups=None):
    index = np.repeat(np.arange(len(sizes)), sizes)
    names = [""] * len(index) if groups is None else groups
    labels = NAMES if len(sizes) <= len(NAMES) else [f"class {n}" for n in range(len(sizes))]
    return group_videos(index, names, range(len(sizes)), labels)


def as_tuple(episode):
    return episode.classes.tolist(), episode.support.tolist(), episode.query.tolist()


def draw_in_worker(number):
    return as_tuple(EpisodeSampler(class_videos([9] * 6), way=5, shot=2, seed=7).episode(number))


def test_words_equal_the_published_philox_sequence_of_the_key():
    expected = np.random.Philox(key=np.array([3, 5], dtype=np.uint64)).random_raw(100)
    words = Words(Stream.EPISODE, 3, 5)
    assert [words.word() for _ in range(100)] == expected.tolist()


def test_episode_zero_of_seed_zero_is_frozen():
    # Guards against any change of the draw, which would make published accuracies unrepeatable.
    episode = EpisodeSampler(class_videos([9] * 6), way=5, shot=1, seed=0).episode(0)
    assert as_tuple(episode) == (
        [0, 2, 1, 4, 5],
        [[8], [21], [15], [41], [52]],
        [[2], [26], [10], [37], [47]],
    )


def test_permutation_is_uniform_over_all_orders():
    words = Words(Stream.EPISODE, 0, 0)
    counts = Counter(tuple(words.permutation(4)) for _ in range(24_000))
    assert set(counts) == set(permutations(range(4)))
    # Chi-square with 23 degrees of freedom: 49.7 is its 99.9 % quantile.
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 49.7


def test_episode_holds_distinct_videos_of_the_right_classes():
    index = np.random.default_rng(0).permutation(np.repeat(np.arange(6), [7, 8, 9, 10, 11, 12]))
    videos = group_videos(index, [""] * len(index), range(6), NAMES)
    sampler = EpisodeSampler(videos, way=5, shot=3, queries=2, seed=1)
    for number in range(200):
        episode = sampler.episode(number)
        assert len(set(episode.classes.tolist())) == 5
        rows = np.concatenate([episode.support, episode.query], axis=1)
        assert rows.shape == (5, 5)
        assert len(np.unique(rows)) == 25
        np.testing.assert_array_equal(index[rows], np.repeat(episode.classes[:, None], 5, axis=1))


def test_episodes_are_the_same_in_any_order_and_in_batches():
    sampler = EpisodeSampler(class_videos([9] * 6), way=5, shot=2, seed=7)
    forward = [as_tuple(sampler.episode(number)) for number in range(20)]
    again = EpisodeSampler(class_videos([9] * 6), way=5, shot=2, seed=7)
    backward = [as_tuple(again.episode(number)) for number in reversed(range(20))]
    assert forward == backward[::-1]
    batch = again.batch(5, 10)
    stacked = list(
        zip(batch.classes.tolist(), batch.support.tolist(), batch.query.tolist(), strict=True)
    )
    assert stacked == forward[5:15]


@pytest.mark.parametrize("workers", [1, 4])
def test_episodes_are_the_same_in_worker_processes(workers):
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        drawn = list(pool.map(draw_in_worker, range(12)))
    assert drawn == [draw_in_worker(number) for number in range(12)]


def test_episodes_are_the_same_in_another_process_with_another_hash_seed():
    code = "from tests.test_episodes import draw_in_worker as d; print([d(n) for n in range(5)])"
    code = code.replace("from tests.", "import sys; sys.path.insert(0, 'tests'); from ")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": "9"}
    )
    assert done.stdout.strip() == str([draw_in_worker(number) for number in range(5)]), done.stderr


def test_episodes_differ_by_seed_and_number():
    first, second = (EpisodeSampler(class_videos([9] * 6), way=5, shot=2, seed=s) for s in (0, 1))
    drawn = [str(as_tuple(s.episode(n))) for s in (first, second) for n in range(50)]
    assert len(set(drawn)) == 100


def test_every_class_and_video_is_drawn_equally_often():
    sampler = EpisodeSampler(class_videos([8] * 6), way=2, shot=1, queries=1)
    batch = sampler.batch(0, 6000)
    classes = np.bincount(batch.classes.ravel(), minlength=6)
    assert abs(classes - 2000).max() < 4 * (6000 * (1 / 3) * (2 / 3)) ** 0.5
    for rows in (batch.query, batch.support):
        counts = np.bincount(rows.ravel(), minlength=48)
        assert abs(counts - 250).max() < 5 * 250**0.5


def test_disjoint_groups_hold_over_the_whole_episode_when_sources_span_classes():
    rng = np.random.default_rng(0)
    groups = [f"film {n}" for n in rng.integers(0, 25, size=72)]
    videos = class_videos([12] * 6, groups)
    sampler = EpisodeSampler(videos, way=5, shot=3, queries=2, disjoint_groups=True)
    shared = EpisodeSampler(videos, way=5, shot=3, queries=2).batch(0, 200)
    batch = sampler.batch(0, 200)

    def clashes(episodes):
        return sum(
            bool({groups[r] for r in query.ravel()} & {groups[r] for r in support.ravel()})
            for query, support in zip(episodes.query, episodes.support, strict=True)
        )

    assert clashes(shared) > 150
    assert clashes(batch) == 0


def test_disjoint_groups_are_found_when_few_sources_are_shared_by_all_classes():
    # 6 scenes with 2 clips of every class: 5 queries need 3 of them, and 5 shots the other 3.
    groups = [f"scene {n // 2}" for n in range(12)] * 6
    videos = class_videos([12] * 6, groups)
    sampler = EpisodeSampler(videos, way=5, shot=5, queries=5, disjoint_groups=True)
    batch = sampler.batch(0, 50)
    sides = set()
    for query, support in zip(batch.query, batch.support, strict=True):
        of_queries = frozenset(groups[row] for row in query.ravel())
        assert len(of_queries) == 3
        assert not of_queries & {groups[row] for row in support.ravel()}
        assert len(np.unique(np.concatenate([query, support], axis=1))) == 50
        sides.add(of_queries)
    assert len(sides) > 10  # of 20


def test_disjoint_groups_treat_an_unknown_group_as_its_own():
    assert number_groups(["b", "", "a", "", "b"]).tolist() == [2, 4, 1, 6, 2]
    sampler = EpisodeSampler(class_videos([4] * 6), way=5, shot=3, disjoint_groups=True)
    assert sampler.episode(0).support.shape == (5, 3)


@given(
    groups=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    shot=st.integers(1, 5),
    queries=st.integers(1, 3),
)
@settings(max_examples=200)
def test_can_part_agrees_with_trying_every_set_of_groups(groups, shot, queries):
    videos = ClassVideos(number=0, name="x", rows=list(range(len(groups))), groups=groups)
    names = set(groups)
    possible = any(
        sum(group in held for group in groups) >= queries
        and sum(group not in held for group in groups) >= shot
        for size in range(len(names) + 1)
        for held in combinations(names, size)
    )
    assert videos.can_part(shot, queries) == possible


def test_sampler_refuses_a_way_beyond_the_classes():
    with pytest.raises(
        ConfigError,
        match=r"split 'test' of hmdb51 has 4 classes, way=5 needs 5; lower way",
    ):
        EpisodeSampler(class_videos([9] * 4), way=5, shot=1, where="split 'test' of hmdb51")
    EpisodeSampler(class_videos([9] * 4), way=4, shot=1)  # the hint works


@pytest.mark.parametrize(
    ("sizes", "count", "hint"),
    [
        ([], "0 classes", "; find more"),
        ([9], "1 class", "; find more"),
        ([9, 2], r"1 class with .* \('\w+' dropped\)", "; lower shot or queries, or find more"),
        ([9, 9, 2], r"2 classes with .* \('\w+' dropped\)", "; lower way, shot or queries"),
    ],
)
def test_sampler_hints_at_no_lower_way_where_fewer_than_two_classes_are_left(sizes, count, hint):
    with pytest.raises(ConfigError, match=f"has {count}, way=5 needs 5{hint}$"):
        EpisodeSampler(
            class_videos(sizes), way=5, shot=2, drop_small_classes=True, remedy="find more"
        )


def test_sampler_refuses_a_class_with_too_few_videos_unless_told_to_drop_it():
    videos = class_videos([9, 9, 5, 9, 9, 3])
    message = r"class 'lift' of .* has 5 videos, shot=5 \+ queries=1 needs 6 \(also .*'wave'\)"
    with pytest.raises(ConfigError, match=message):
        EpisodeSampler(videos, way=4, shot=5)
    sampler = EpisodeSampler(videos, way=4, shot=5, drop_small_classes=True)
    assert sampler.dropped == ("lift", "wave")
    assert set(sampler.batch(0, 50).classes.ravel().tolist()) == {0, 1, 3, 4}
    with pytest.raises(ConfigError, match=r"has 4 classes with shot=5 \+ queries=1 videos \('l"):
        EpisodeSampler(videos, way=5, shot=5, drop_small_classes=True)


def test_sampler_refuses_a_class_whose_groups_cannot_be_parted():
    groups = [f"{n % 3}" for n in range(45)] + ["one source"] * 9
    message = r"'wave' of .* has 9 videos in 1 group, which cannot be parted into shot=1"
    with pytest.raises(ConfigError, match=message):
        EpisodeSampler(class_videos([9] * 6, groups), way=5, shot=1, disjoint_groups=True)


def test_sampler_gives_up_with_a_reason_when_classes_share_all_their_sources():
    # Each class can be parted, yet the query group of one is the support group of the other.
    groups = ["a"] * 3 + ["b"] + ["a"] + ["b"] * 3
    sampler = EpisodeSampler(
        class_videos([4, 4], groups), way=2, shot=3, queries=1, disjoint_groups=True
    )
    with pytest.raises(ConfigError, match=r"1000 draws of 'cut', 'fold'|'fold', 'cut'"):
        sampler.episode(0)


@pytest.mark.parametrize(("name", "value"), [("way", 1), ("shot", 0), ("queries", 0), ("seed", -1)])
def test_sampler_refuses_senseless_numbers(name, value):
    arguments = {"way": 5, "shot": 1, "queries": 1, "seed": 0, name: value}
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        EpisodeSampler(class_videos([9] * 6), **arguments)


@pytest.mark.parametrize("disjoint", [False, True])
def test_drawing_an_episode_takes_under_a_millisecond_at_67013_videos(disjoint):
    rng = np.random.default_rng(0)
    index = rng.integers(0, 64, size=67_013)
    groups = [f"{g}" for g in rng.integers(0, 20_000, size=67_013)]
    videos = group_videos(index, groups, range(64), [f"{n}" for n in range(64)])
    sampler = EpisodeSampler(videos, way=5, shot=5, disjoint_groups=disjoint)
    durations = []
    for number in range(200):
        start = time.perf_counter()
        sampler.episode(number)
        durations.append(time.perf_counter() - start)
    assert np.median(durations) < 1e-3  # about 0.05 ms; the median ignores a busy machine's pauses


def test_pool_takes_distinct_groups_and_forms_episodes_inside_itself():
    groups = [f"{n % 4}" for n in range(60)] * 2
    videos = class_videos([20] * 6, groups)
    sampler = PoolSampler(
        videos, way=3, shot=1, queries=2, seed=0, num_classes=4, episodes_per_step=64, where="x"
    )
    pool = sampler.pool(11)
    assert pool.rows.shape == (4, 3)
    for rows, number in zip(pool.rows, pool.classes, strict=True):
        assert set(rows // 20) == {number}
        assert len({groups[row] for row in rows}) == 3
    assert pool.support.shape == (64, 3, 1)
    assert pool.query.shape == (64, 3, 2)
    clips = np.concatenate([pool.support, pool.query], axis=2)
    for episode in clips:
        assert len(np.unique(episode)) == 9
        assert (episode // 3 == episode[:, :1] // 3).all()
    assert len(np.unique(clips.reshape(64, -1), axis=0)) == 64


def test_pool_is_a_function_of_seed_and_step_and_a_short_step_is_a_prefix():
    def sampler(seed):
        return PoolSampler(
            class_videos([9] * 6),
            way=5,
            shot=1,
            queries=2,
            seed=seed,
            num_classes=32,
            episodes_per_step=8,
            where="x",
        )

    first, again = sampler(3), sampler(3)
    again.pool(1)
    np.testing.assert_array_equal(first.pool(4).rows, again.pool(4).rows)
    np.testing.assert_array_equal(first.pool(4).query[:3], again.pool(4, episodes=3).query)
    assert not np.array_equal(first.pool(4).rows, sampler(4).pool(4).rows)


def test_draw_clips_repeats_a_group_only_when_groups_run_out():
    videos = ClassVideos(number=0, name="x", rows=list(range(6)), groups=[0, 0, 0, 0, 0, 1])
    for number in range(50):
        rows = draw_clips(Words(Stream.POOL, 0, number), videos, 3)
        assert len(set(rows)) == 3
        assert 5 in rows


def test_pool_refuses_fewer_classes_than_way_after_dropping_small_ones():
    with pytest.raises(ConfigError, match=r"split 'train' of x has 5 .*'wave' dropped.*way=6"):
        PoolSampler(
            class_videos([9, 9, 9, 9, 9, 2]),
            way=6,
            shot=1,
            queries=2,
            seed=0,
            num_classes=32,
            episodes_per_step=8,
            where="split 'train' of x",
        )
