"""How often the intervals of `i2st compare` call one of two equally good methods better.

    python -m benchmarks.false_positives [--simulations 1000]

Prints Markdown; the luck of 1,000 simulations is 0.7 points (one standard deviation). Two methods
of equal true accuracy (`benchmarks.simulated_methods`) answer 1,000 5-way episodes of 30 videos per
class; classes, videos and episodes are drawn afresh each time. A 95 % interval leaves out 0 in 5 %
of the simulations where it answers the question "other classes and other videos". Expected before
the first run: 5 % for the interval over classes, far more for that over episodes as soon as videos
or classes differ; where classes do not differ 5 % for the interval over videos, or over sources
where clips of one are alike. Where a method has several training seeds, each draws its effects
afresh, so that all luck is that of a training; expected: 5 % for the interval over seeds.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.simulated_methods import answer, draw_set
from i2st_model.comparison import compare

NAMES = ("episodes", "videos", "classes", "seeds")
CLIPS = 5
"""Of each source, where sources differ."""
EFFECTS = {"of_classes": 0.4, "pulls": 0.4, "of_videos": 0.6, "of_support": 0.6}
"""Spread of what classes and videos do, beside an ease of 1.5 and answers that vary by 1.3."""
OF_VIDEOS = {"of_videos": 1.0, "of_support": 0.5}
OF_SOURCES = {**OF_VIDEOS, "of_one_source": CLIPS}

WORLDS: tuple[tuple[str, Mapping[str, Any], Mapping[str, Any]], ...] = (
    ("10 classes", EFFECTS, {"classes": 10}),
    ("16 classes", EFFECTS, {"classes": 16}),
    ("24 classes", EFFECTS, {"classes": 24}),
    ("24 classes, 5-shot", EFFECTS, {"classes": 24, "shot": 5}),
    *(
        (f"{classes} classes, {way}-way", EFFECTS, {"classes": classes, "way": way})
        for way in (3, 2)
        for classes in (10, 16, 24)
    ),
    ("10 classes, 3 training seeds", EFFECTS, {"classes": 10, "seeds": 3}),
    ("10 classes, 5 training seeds", EFFECTS, {"classes": 10, "seeds": 5}),
    ("5 classes, all in every episode", EFFECTS, {"classes": 5}),
    ("10 classes that do not differ", OF_VIDEOS, {"classes": 10}),
    ("the same, 5 clips of each source alike", OF_SOURCES, {"classes": 10}),
    (
        "the same, query and support of other sources",
        OF_SOURCES,
        {"classes": 10, "disjoint_sources": CLIPS},
    ),
    ("nothing differs", {}, {"classes": 10}),
)


def false_positives(
    simulations: int, effects: Mapping[str, Any], *, seeds: int = 1, **shape: Any
) -> dict[str, tuple[float, float]]:
    """Share of simulations whose interval leaves out 0, and its median half-width in points."""
    rng = np.random.default_rng(0)
    names = NAMES if seeds > 1 else NAMES[:-1]
    wrong = dict.fromkeys(names, 0)
    halves: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(simulations):
        episodes = draw_set(rng, **shape)
        first, second = ([answer(rng, episodes, **effects) for _ in range(seeds)] for _ in "ab")
        found = compare(first, second)
        for name in names:
            interval = found.intervals[name]
            assert interval is not None
            wrong[name] += not interval.low <= 0 <= interval.high
            halves[name].append(interval.half_width)
    return {name: (wrong[name] / simulations, float(np.median(halves[name]))) for name in names}


def main() -> None:
    """Print one row per world."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--simulations", type=int, default=1000)
    simulations = parser.parse_args().simulations
    print(f"False positives in {simulations} simulations, and median half-width in points\n")
    heads = ("over episodes", "over videos or sources", "over classes", "over seeds")
    print(f"| world | {' | '.join(heads)} |")
    print(f"|---|{'---|' * len(heads)}")
    for world, effects, shape in WORLDS:
        found = false_positives(simulations, effects, **shape)
        cells = [
            f"{100 * found[name][0]:.1f} %, {found[name][1]:.1f}" if name in found else "-"
            for name in NAMES
        ]
        print(f"| {world} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
