"""What sources of videos add to a difference: by written-out sums, and by simulation."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.false_positives import OF_SOURCES, false_positives
from benchmarks.simulated_methods import answer, draw_set
from i2st_model.comparing.clusters import gains_of
from i2st_model.comparing.comparison_table import comparison_table
from i2st_model.comparing.sources import (
    chance_squares,
    degrees_of_freedom,
    source_variance,
    spreads_of,
)
from i2st_model.comparison import compare
from i2st_model.statistics import t_quantile
from i2st_model.sweeping.sweep_table import sweep_notes


def pair(seed, *, effects, sources=None, **shape):
    rng = np.random.default_rng(seed)
    episodes = draw_set(rng, **shape)
    drawn = (answer(rng, episodes, name=name, **effects) for name in "ab")
    return tuple(replace(one, video_source=sources) for one in drawn)


def terms(gains):
    """What is gained beyond the class's mean: by each query, and what each class draws."""
    classes, own, drawn = gains.episodes.classes, gains.own.copy(), gains.drawn.copy()
    for number in np.unique(classes):
        mine = classes == number
        own[mine] -= gains.own[mine].mean()
        drawn[mine] -= gains.drawn[mine].mean()
    return own, drawn


def drawn_clips(rng, shape, disjoint):
    """Places of support and query clips in their class, (30, 5, ...), one draw for each row."""
    order = rng.random((30, 5, 6)).argsort(axis=2)
    if disjoint:  # one query, then the first of another source
        other = order // 2 != order[:, :, :1] // 2
        support = np.take_along_axis(order, other.argmax(axis=2)[..., None], axis=2)
        return support, order[:, :, :1]
    return order[:, :, : shape["shot"]], order[:, :, shape["shot"] :][:, :, : shape["queries"]]


@pytest.mark.parametrize(
    ("shape", "clips"),
    [
        ({}, 1),
        ({"queries": 2}, 1),
        ({"shot": 2, "queries": 3}, 1),
        ({"shot": 2, "queries": 3}, 2),
        ({"disjoint_sources": 2}, 2),
    ],
    ids=str,
)
def test_what_single_episodes_bring_to_sources_is_the_mean_over_draws_of_videos(shape, clips):
    shape = {"shot": 1, "queries": 1, "classes": 6, "videos": 6, "episodes": 30, **shape}
    first, second = pair(0, effects={}, sources=np.arange(36) // clips, **shape)
    gains, classes = gains_of([first], [second]), first.episodes.classes
    own, drawn = terms(gains)
    slot = own.sum(axis=2) + drawn
    spreads = spreads_of(gains.episodes, gains.sources)
    found = chance_squares(gains.episodes, own, slot, spreads).sum()
    rng, squares = np.random.default_rng(0), []
    for _ in range(1500):
        support, query = drawn_clips(rng, shape, "disjoint_sources" in shape)
        scores = np.zeros(36)
        np.add.at(scores, (query + 6 * classes[:, :, None]) // clips, own)
        np.add.at(scores, (support + 6 * classes[:, :, None]) // clips, slot[:, :, None])
        squares.append((scores**2).sum())
    error = np.std(squares) / math.sqrt(len(squares))
    assert error < 0.02 * found
    assert found == pytest.approx(np.mean(squares), abs=4 * error)


UNEVEN = np.tile(np.repeat(np.arange(6), [1, 1, 2, 2, 3, 3]), 6)
"""Six sources with 1 to 3 clips in each of six classes of 12."""


@pytest.mark.parametrize("disjoint", [False, True])
@pytest.mark.parametrize("sources", [np.arange(72), np.arange(72) // 2, UNEVEN], ids=len)
def test_source_variance_follows_a_written_out_loop(sources, disjoint):
    shape = {"classes": 6, "videos": 12, "episodes": 200, "shot": 2, "queries": 2}
    effects = {"of_videos": 3.0, "of_support": 2.0}
    first, second = pair(3, effects=effects, sources=sources, **shape)
    gains = gains_of([first], [second])
    episodes = replace(first.episodes, disjoint_groups=disjoint)
    gains = replace(gains, episodes=episodes)
    own, drawn = terms(gains)
    shares = np.unique(sources[:12], return_counts=True)[1] / 12  # the same in every class
    same, cubed = (shares**2).sum(), (shares**3).sum()
    # How far a clip's companion lies on the other side of the class's mean, in its own distance.
    alike = 1 / 11
    across = same / (1 - same) if disjoint else alike
    # As a query a source shows what it does there, less what other support hides; and so on.
    seen = np.array([[1, -across], [-2 * across, 1 - alike]])
    asked, shown = np.linalg.solve(seen.T, np.ones(2))
    own_asked, slot = own * asked, own.sum(axis=2) * shown + drawn / (1 - alike)
    scores = np.zeros(72)
    for e, n in np.ndindex(200, 5):
        for i in range(2):
            scores[sources[episodes.query[e, n, i]]] += own_asked[e, n, i]
            scores[sources[episodes.support[e, n, i]]] += slot[e, n]
    scale = same / sum(p**2 * (1 - 2 * p + same) for p in shares)
    assert scale == pytest.approx(same / (same - 2 * cubed + same**2))
    spreads = spreads_of(episodes, sources)
    chance = chance_squares(episodes, own_asked, slot, spreads).sum()
    of_sources = scale * ((scores**2).sum() - chance)
    of_episodes = sum(own[e].sum() ** 2 for e in range(200))
    assert of_sources > of_episodes  # hence not cut off at 0
    expected = (of_sources + of_episodes) / 2000**2
    assert source_variance(gains) == pytest.approx(expected)


def test_videos_are_their_own_sources_where_nothing_else_is_known():
    shape = {"episodes": 200, "effects": {"of_videos": 1.0}}
    unknown, own = pair(0, **shape), pair(0, sources=np.arange(300)[::-1], **shape)
    without, found = (compare([first], [second]) for first, second in (unknown, own))
    assert without.over("videos") == found.over("videos") == "videos"
    half = without.intervals["videos"].half_width
    assert found.intervals["videos"].half_width == pytest.approx(half)


def test_a_file_without_sources_takes_those_of_the_other_side():
    sources = np.arange(300) // 5
    first, second = pair(0, episodes=200, effects={}, sources=sources)
    both = compare([first], [second])
    assert both.num_sources == 60
    assert compare([replace(first, video_source=None)], [second]) == both


def test_videos_are_counted_where_their_sources_are_known():
    first, second = pair(0, episodes=200, effects={}, sources=np.arange(300))
    episodes = first.episodes
    more = replace(  # of the same episodes, with videos that none of them drew
        episodes,
        video_ids=(*episodes.video_ids, "d/0", "d/1"),
        video_class=np.append(episodes.video_class, [9, 9]),
    )
    for sources in (np.append(np.arange(300), [300, 300]), np.arange(302)):
        known = replace(second, episodes=more, video_source=sources)
        for sides in (([replace(first, video_source=None)], [known]), ([known], [first])):
            found = compare(*sides)
            assert (found.num_videos, found.num_sources) == (302, len(set(sources)))
            shared = len(set(sources)) < 302
            assert found.over("videos") == ("sources" if shared else "videos")


def test_the_interval_is_absent_where_sources_cannot_be_told_apart():
    first, second = pair(0, episodes=20, videos=6, shot=5, effects={})
    assert source_variance(gains_of([first], [second])) is None
    found = compare([first], [second])
    assert found.intervals["videos"] is None
    told = "class 'c000' (and 9 more) has no more videos than an episode takes, 6"
    assert found.why_not["videos"] == told
    of_two = {"episodes": 20, "disjoint_sources": 15, "sources": np.arange(300) // 15}
    first, second = pair(0, effects={}, **of_two)
    told = "an episode takes clips of too many of the 2 sources of class 'c000' (and 9 more)"
    assert compare([first], [second]).why_not["videos"] == told


@pytest.mark.parametrize(("alone", "named"), [([7], "'c007'"), ([3, 8], "'c003' (and 1 more)")])
def test_a_class_of_one_source_is_named_where_it_takes_the_interval_away(alone, named):
    sources, own = np.arange(300), np.repeat(np.arange(10), 30)
    for number in alone:
        sources[own == number] = 30 * number
    first, second = pair(0, episodes=20, effects={}, sources=sources)
    found = compare([first], [second])
    assert found.intervals["videos"] is None
    notes = comparison_table(("a", "b"), [first.episodes], [found]).notes
    assert f"no interval over sources: all 30 videos of class {named} are of one source." in notes


@pytest.mark.parametrize(
    ("sources", "degrees"),
    [
        (np.arange(300), 290),
        (np.arange(300) // 5, 50),
        (np.tile(np.arange(30) // 3, 10), 9),  # ten people, in every class
        (np.where(np.arange(300) < 60, np.arange(300) % 30, np.arange(300)), 261),
    ],
)
def test_degrees_of_freedom_are_sources_less_one_for_classes_that_share_them(sources, degrees):
    first, second = pair(0, episodes=20, effects={}, sources=sources)
    assert degrees_of_freedom(gains_of([first], [second])) == degrees


def test_the_table_says_that_the_interval_is_over_sources():
    first, second = pair(0, episodes=300, effects=OF_SOURCES, sources=np.arange(300) // 5)
    found = compare([first], [second])
    gains = gains_of([first], [second])
    half = 100 * t_quantile(50) * source_variance(gains) ** 0.5
    assert found.intervals["videos"].half_width == pytest.approx(half)
    table = comparison_table(("a", "b"), [first.episodes], [found])
    assert "A - B, over sources" in [row.label for row in table.rows]
    assert "300 videos of 60 sources" in table.notes[0]
    assert any(note.startswith("over sources: would videos of these cl") for note in table.notes)
    assert found.to_json()["num_sources"] == 60
    assert found.to_json()["over"]["videos"] == "sources"
    own = [[found], [found]]
    notes = sweep_notes(first.episodes, own, seeds=1, over="videos", selected_on_val=False)
    assert "with 95 % intervals over sources" in notes[0]


# --- A/A: two methods of equal true accuracy, whose luck is that of sources ---


@pytest.mark.parametrize("disjoint", [0, 5])
def test_interval_over_sources_holds_where_their_clips_are_alike(disjoint):
    found = false_positives(150, OF_SOURCES, classes=10, disjoint_sources=disjoint, shot=2)
    assert found["videos"][0] <= 0.11  # 0.05 expected, 0.36 over videos; 0.018 is one deviation


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_false_positives_over_sources_are_5_percent():
    shapes = ({}, {"shot": 5}, {"disjoint_sources": 5}, {"queries": 3})
    found = [false_positives(1000, OF_SOURCES, classes=10, **shape) for shape in shapes]
    assert np.mean([one["videos"][0] for one in found]) == pytest.approx(0.05, abs=0.015)
