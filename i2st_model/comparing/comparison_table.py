"""A comparison as a table: accuracies, and below them what the difference is worth."""

from collections.abc import Sequence
from typing import Any

from i2st_model.comparison import OF_SOURCES, QUESTIONS, Comparison
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.reporting.result_tables import ResultTable, Row

MOST_LETTERS = 40
"""Of a path beside its method; what is longer shows its end."""


def comparison_table(
    names: tuple[str, str], cells: Sequence[EpisodeSet], found: Sequence[Comparison]
) -> ResultTable:
    """Arrange comparisons: a column per cell, a row per side and per interval of the difference.

    Args:
        names: of both sides, as they were typed.
        cells: ways and shots.
        found: a comparison of each cell.

    Returns:
        The table, with the question that each interval answers below it.
    """
    sides = [
        Row(
            name=f"{letter}: {_side(name, found[0].methods[number], len(found[0].runs[number]))}",
            cells=tuple((one.first, one.second)[number] for one in found),
            uses_class_names=found[0].uses_class_names[number],
        )
        for number, (letter, name) in enumerate(zip("AB", names, strict=True))
    ]
    told = [name for name in QUESTIONS if any(one.intervals[name] for one in found)]
    rows = [
        Row(
            name=f"A - B, over {found[0].over(name)}", cells=tuple(c.intervals[name] for c in found)
        )
        for name in told
    ]
    return ResultTable(
        columns=tuple(f"{cell.way}-way {cell.shot}-shot" for cell in cells),
        rows=(*sides, *rows),
        notes=(
            _data(cells[0], found[0]),
            *_runs(found[0]),
            *_inputs(found[0]),
            *_questions([found[0].over(name) for name in told]),
            *_alone(found[0]),
            *_absent(found),
        ),
        head="side",
    )


def comparison_json(
    names: tuple[str, str], cells: Sequence[EpisodeSet], found: Sequence[Comparison]
) -> dict[str, Any]:
    """JSON values of comparisons, each beside its episodes.

    Args:
        names: of both sides, as they were typed.
        cells: ways and shots.
        found: a comparison of each cell.

    Returns:
        Unrounded numbers.
    """
    values = [{**_facts(cell), **one.to_json()} for cell, one in zip(cells, found, strict=True)]
    return {"first": names[0], "second": names[1], "cells": values}


def _side(typed: str, method: str, num_runs: int) -> str:
    """A method, with the file or the run that it was named by; of several runs their number."""
    several = f"{num_runs} seeds" if num_runs > 1 else ""
    source = typed.removesuffix(f"@{method}")
    if source == method or (several and "," in typed):
        source = ""
    elif len(source) > MOST_LETTERS:
        source = f"...{source[3 - MOST_LETTERS :]}"
    beside = ", ".join(filter(None, (source, several)))
    return f"{method} ({beside})" if beside else method


def _facts(cell: EpisodeSet) -> dict[str, Any]:
    return {
        "dataset": cell.dataset,
        "split": cell.split,
        "way": cell.way,
        "shot": cell.shot,
        "queries": cell.queries,
        "episodes": cell.num_episodes,
        "seed": cell.seed,
        "digest": cell.digest,
    }


def _data(cell: EpisodeSet, found: Comparison) -> str:
    where = f"{cell.dataset} {cell.split}".strip()
    runs = f", {found.num_seeds} training seeds" if found.num_seeds > 1 else ""
    shared = found.num_sources < found.num_videos
    videos = f"{found.num_videos} videos{f' of {found.num_sources} sources' if shared else ''}"
    return (
        f"{where}: {found.num_classes} classes, {videos}, {cell.num_episodes} "
        f"episodes, {cell.queries} {'queries' if cell.queries > 1 else 'query'} per class, seed "
        f"{cell.seed}{runs}; percent, 95 % intervals; digest {cell.digest[:12]}."
    )


def _questions(told: Sequence[str]) -> list[str]:
    asked = [f"over {name}: {QUESTIONS.get(name, OF_SOURCES)}" for name in told]
    return [
        *asked,
        "An interval without 0 answers its own question alone: that a method is better in general "
        "needs those over classes and over seeds.",
    ]


def _inputs(found: Comparison) -> list[str]:
    first, second = found.seen
    said = f"A saw {first}, B {second}: the difference is not that of the methods alone."
    return [said] if first != second else []


def _alone(found: Comparison) -> list[str]:
    return [
        f"{letter} is one training, whose own luck is not in the interval over seeds."
        for letter, alone in zip("AB", found.one_training, strict=True)
        if alone
    ]


def _absent(found: Sequence[Comparison]) -> list[str]:
    """One sentence per reason, with all intervals that it takes away."""
    names: dict[str, dict[str, None]] = {}
    for one in found:
        for name, why in one.why_not.items():
            names.setdefault(why, {})[one.over(name)] = None
    return [f"no interval over {', '.join(of)}: {why}." for why, of in names.items()]


def _runs(found: Comparison) -> list[str]:
    return [
        f"{letter}: {'; '.join(runs)}."
        for letter, runs in zip("AB", found.runs, strict=True)
        if runs
    ]
