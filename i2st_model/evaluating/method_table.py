"""Several methods on the same episodes of several ways and shots: shards read once, one table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from i2st_model.checkpoints import Checkpoint
from i2st_model.copied_videos import copies_of_trained
from i2st_model.evaluating.config import EvaluateConfig
from i2st_model.evaluating.episode_draws import draw_episodes, evaluated_classes
from i2st_model.evaluating.evaluated import Evaluation
from i2st_model.evaluating.method_runs import MethodRun
from i2st_model.evaluation import EvaluateProgress, evaluate_sets
from i2st_model.features import FeatureStore
from i2st_model.leaks import NOTHING_SEEN, Seen, seen_by_run
from i2st_model.methods.base import FewShotMethod
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.reporting.tables import ResultTable, Row


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadyMethod:
    """A method that can be evaluated."""

    asked: MethodRun
    """Its name as it was asked for, and its run."""
    label: str
    """What the table calls it; its name, with the run's where several runs of it stand there."""
    method: FewShotMethod
    checkpoint: Checkpoint | None
    store: FeatureStore
    """Features of the dataset, as the method sees them."""


def cell_configs(
    config: EvaluateConfig, ways: Sequence[int], shots: Sequence[int]
) -> list[EvaluateConfig]:
    """Return the config with every way and shot, ways first."""
    return [replace(config, way=way, shot=shot) for way in ways for shot in shots]


def seen_by_any(methods: Sequence[ReadyMethod], config: EvaluateConfig) -> Seen:
    """Find what of a split any of the methods' training runs saw.

    Args:
        methods: those without a checkpoint saw nothing.
        config: which classes are evaluated.

    Returns:
        Classes and videos of the evaluated dataset.
    """
    seen = NOTHING_SEEN
    for ready in methods:
        if ready.checkpoint is not None:
            names = evaluated_classes(ready.store, config)
            rows = ready.store.rows_of(names).tolist()
            ids = [ready.store.reader.video_ids[row] for row in rows]
            info = ready.checkpoint.info
            copies = copies_of_trained(info, ready.store.index, ids)
            seen = seen | seen_by_run(info, names, ids) | Seen(videos=tuple(copies))
    return seen


def draw_cells(
    store: FeatureStore, configs: Sequence[EvaluateConfig], seen: Seen = NOTHING_SEEN
) -> list[EpisodeSet]:
    """Draw the episodes of every cell, once for all methods."""
    return [draw_episodes(store, config, seen) for config in configs]


def evaluate_methods(
    methods: Sequence[ReadyMethod],
    cells: Sequence[EpisodeSet],
    config: EvaluateConfig,
    *,
    on_progress: Callable[[EvaluateProgress, str], None] | None = None,
) -> list[tuple[Evaluation, ...]]:
    """Evaluate every method on every cell; a method prepares each video once for all cells.

    Args:
        methods: in the order of the table.
        cells: sets of episodes.
        config: precision, device and batches.
        on_progress: called after every batch of episodes, with the method's label.

    Returns:
        For each method its evaluations, one per cell.

    Raises:
        ConfigError: a video is absent, or training saw some of it.
        ShardError: training saw copies of some of it.
    """
    total = len(methods) * sum(cell.num_episodes for cell in cells)
    found = []
    for number, ready in enumerate(methods):
        before = number * total // len(methods)

        def tell(now: EvaluateProgress, start: int = before, label: str = ready.label) -> None:
            if on_progress is not None:
                done = EvaluateProgress(episodes=start + now.episodes, num_episodes=total)
                on_progress(done, label)

        found.append(
            evaluate_sets(
                ready.method,
                ready.store,
                cells,
                config,
                checkpoint=ready.checkpoint,
                on_progress=tell,
            )
        )
    return found


def result_table(
    methods: Sequence[ReadyMethod], found: Sequence[Sequence[Evaluation]]
) -> ResultTable:
    """Arrange evaluations as a table: a row per method, a column per cell.

    Args:
        methods: in the order of the rows.
        found: for each method its evaluations.

    Returns:
        The table, with a note that says what the figures are.
    """
    first = found[0]
    rows = tuple(
        Row(
            name=ready.label,
            cells=tuple(one.accuracy for one in own),
            uses_class_names=ready.method.uses_class_names,
        )
        for ready, own in zip(methods, found, strict=True)
    )
    where = first[0]
    return ResultTable(
        columns=tuple(f"{one.config.way}-way {one.config.shot}-shot" for one in first),
        rows=rows,
        notes=(
            f"{where.dataset} {where.config.split}: mean accuracy in percent of "
            f"{where.config.episodes} episodes with {where.config.queries} "
            f"{'queries' if where.config.queries > 1 else 'query'} per class, seed "
            f"{where.config.seed}, +/- 95 % half-width over episodes; digest {where.digest[:12]}.",
            *_run_notes(methods, found),
        ),
    )


def class_table(
    methods: Sequence[ReadyMethod], found: Sequence[Sequence[Evaluation]]
) -> ResultTable:
    """Arrange accuracies by class: a row per class, a column per method and cell.

    Args:
        methods: in the order of the columns.
        found: for each method its evaluations.

    Returns:
        The table, in percent; classes that a cell never drew have nothing there.
    """
    every = [
        (f"{ready.label} {one.config.way}w{one.config.shot}s", one.per_class)
        for ready, own in zip(methods, found, strict=True)
        for one in own
    ]
    names = dict.fromkeys(name for _, per_class in every for name in per_class)
    rows = [
        Row(
            name=name,
            cells=tuple(f"{by[name]:5.1f}" if name in by else None for _, by in every),
        )
        for name in names
    ]
    titles = ("accuracy",) if len(every) == 1 else tuple(title for title, _ in every)
    return ResultTable(columns=titles, rows=tuple(rows), head="class")


def _run_notes(
    methods: Sequence[ReadyMethod], found: Sequence[Sequence[Evaluation]]
) -> tuple[str, ...]:
    """Which run each trained row is, in words that outlive its folder."""
    made = [(ready.label, own[0].result.made_by) for ready, own in zip(methods, found, strict=True)]
    return tuple(f"{label}: {by.run_words()}." for label, by in made if by.run is not None)


def table_json(
    methods: Sequence[ReadyMethod], found: Sequence[Sequence[Evaluation]]
) -> dict[str, Any]:
    """JSON values of all evaluations, each with the label of its method."""
    return {
        "evaluations": [
            {"label": ready.label, **one.to_json()}
            for ready, own in zip(methods, found, strict=True)
            for one in own
        ]
    }
