"""`i2st compare`: two methods on the same episodes, and what their difference is worth."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.asked_episodes import (
    OF_EPISODES,
    asked_configs,
    asked_settings,
    note_chosen_on,
    open_cells,
    require_replayable,
)
from i2st_model.commands.lists import words
from i2st_model.commands.method_opening import RUNS, open_methods
from i2st_model.commands.opening import use_threads
from i2st_model.commands.options import (
    ClipFrames,
    DisjointGroups,
    DropSeen,
    DropSmallClasses,
    EpisodeFile,
    Episodes,
    Form,
    OtherFeatures,
    Precision,
    Queries,
    RunShards,
    Seed,
    Shots,
    Split,
    Threads,
    Ways,
)
from pipeline.commands.console import note, show_json, show_settings, table_width
from pipeline.commands.options import Device, Json, refuse_typed
from pipeline.commands.progress import progress


def compare(
    ctx: typer.Context,
    first: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A method, a run's folder, or a file of `i2st evaluate --save`."
        ),
    ],
    second: Annotated[
        str, typer.Argument(metavar="B", help="Another. Several runs, A1,A2,A3: training seeds.")
    ],
    shards: RunShards = None,
    split: Split = "test",
    way: Ways = "5",
    shot: Shots = "1",
    queries: Queries = 1,
    episodes: Episodes = 10_000,
    seed: Seed = 0,
    episode_file: EpisodeFile = None,
    other_features: OtherFeatures = False,
    frames: ClipFrames = None,
    disjoint_groups: DisjointGroups = False,
    drop_small_classes: DropSmallClasses = False,
    drop_seen: DropSeen = False,
    precision: Precision = "float32",
    form: Form = "table",
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Two methods on the same episodes: what a difference is worth.

    The paired difference A - B, and what it says of other episodes, videos, classes and runs.
    """
    from i2st_model.comparing.compared import kept_cells, read_sides, require_seeds
    from i2st_model.comparing.comparison_table import comparison_json, comparison_table
    from i2st_model.reporting.tables import render, require_form

    require_form(form or "table")
    if as_json:
        refuse_typed(ctx, "form", "--json")
    sides = read_sides([words("A", first), words("B", second)], root=RUNS, shards=shards)
    cells = kept_cells(sides)
    require_seeds(sides, cells)
    asked = [part.method for side in sides for part in side if part.method is not None]
    _refuse_unread(ctx, kept=bool(cells), evaluated=bool(asked), replayed=episode_file is not None)
    config, configs = asked_configs(ctx)
    ready: Sequence[Any] = ()
    if asked:
        use_threads(threads)
        shown = {"precision": precision, "device": device, "threads": threads}
        if not cells and episode_file is None:
            shown = {**asked_settings(config, configs), **shown}
        ready = _open(asked, shards=shards, frames=frames, device=device, shown=shown)
        if cells:
            file = next(part.word for side in sides for part in side if part.kept)
            require_replayable(ready, cells, Path(file), other_features=other_features)
        cells = cells or open_cells(
            ready,
            configs,
            episode_file=episode_file,
            other_features=other_features,
            drop_seen=drop_seen,
        )
    found = _compare(sides, cells, _evaluate(asked, ready, cells, config))
    if as_json:
        show_json(comparison_json((first, second), cells, found))
        return
    table = comparison_table((first, second), cells, found)
    typer.echo(render(table, form or "table", table_width()))


def _refuse_unread(ctx: typer.Context, *, kept: bool, evaluated: bool, replayed: bool) -> None:
    """Refuse flags that would say nothing."""
    if kept:
        refuse_typed(ctx, f"{OF_EPISODES} episode_file", "a result file")
    elif replayed:
        refuse_typed(ctx, OF_EPISODES, "--episode-file")
    if not evaluated:
        unread = "shards frames other_features precision threads device"
        refuse_typed(ctx, unread, "result files alone")


def _open(
    asked: Sequence[Any],
    *,
    shards: Path | None,
    frames: int | None,
    device: str,
    shown: Mapping[str, Any],
) -> list[Any]:
    """Load every method and run once."""
    return open_methods(
        list(dict.fromkeys(one.method for one in asked)),
        list(dict.fromkeys(one.run for one in asked if one.run is not None)),
        shards=shards,
        frames=frames,
        device=device,
        on_settings=lambda chosen: show_settings({**chosen, **shown}),
    )


def _evaluate(
    asked: Sequence[Any], ready: Sequence[Any], cells: Sequence[Any], config: Any
) -> dict[Any, list[Any]]:
    """Results of each method that was asked for, one per cell."""
    from i2st_model.evaluating.method_table import evaluate_methods

    if not asked:
        return {}
    with progress("episodes") as show:
        found = evaluate_methods(
            ready,
            cells,
            config,
            on_progress=lambda now, label: show(now.episodes, now.num_episodes, label),
        )
    return {
        one.asked: [evaluation.result for evaluation in own]
        for one, own in zip(ready, found, strict=True)
    }


def _compare(
    sides: Sequence[Sequence[Any]], cells: Sequence[Any], live: Mapping[Any, Sequence[Any]]
) -> list[Any]:
    from i2st_model.comparing.compared import in_order_of_seeds, on_cell
    from i2st_model.comparison import compare as compare_results

    found, results = [], []
    for number, cell in enumerate(cells):
        first, second = (
            [
                result
                for part in side
                for result in (on_cell(part, cell) if part.kept else [live[part.method][number]])
            ]
            for side in sides
        )
        first, second, shared = in_order_of_seeds(first, second)
        if number == 0 and min(len(first), len(second)) > 1 and not shared:
            note("runs are paired in the order given: the two sides differ in training seeds")
        found.append(compare_results(first, second))
        results += [*first, *second]
    note_chosen_on(results)
    return found
