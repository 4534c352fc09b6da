"""`i2st compare`: two methods on the same episodes, and what their difference is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.evaluate import OF_EPISODES, open_cells
from i2st_model.commands.lists import numbers, words
from i2st_model.commands.method_opening import RUNS, open_methods
from i2st_model.commands.opening import use_threads
from i2st_model.commands.options import Seed, Threads
from pipeline.commands.console import note, show_json, show_settings
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
    shards: Annotated[
        Path | None, typer.Option(help="Folder of shards.  [default: those of the run]")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    way: Annotated[str, typer.Option(help="Classes per episode; or several: 5,10.")] = "5",
    shot: Annotated[str, typer.Option(help="Support clips per class; or several: 1,3,5.")] = "1",
    queries: Annotated[int, typer.Option(help="Query clips per class.")] = 1,
    episodes: Annotated[int, typer.Option(help="Episodes.")] = 10_000,
    seed: Seed = 0,
    episode_file: Annotated[
        Path | None, typer.Option(help="Replay these; see `i2st episodes make`.")
    ] = None,
    other_features: Annotated[
        bool, typer.Option(help="Accept episodes of the same videos seen by another encoder.")
    ] = False,
    frames: Annotated[
        int | None, typer.Option(help="Frames of a clip.  [default: the run's, or all stored]")
    ] = None,
    disjoint_groups: Annotated[
        bool, typer.Option(help="Support and query from different source videos.")
    ] = False,
    drop_small_classes: Annotated[
        bool, typer.Option(help="Leave out classes with too few videos.")
    ] = False,
    drop_seen: Annotated[
        bool, typer.Option(help="Leave out classes and videos that training saw.")
    ] = False,
    precision: Annotated[str, typer.Option(help="float32, or float64 for checks.")] = "float32",
    form: Annotated[
        str, typer.Option("--format", help="table, markdown, csv, latex or json.")
    ] = "table",
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Paired difference A - B on the same episodes: what it says of other videos, classes, runs."""
    from i2st_model.comparing.compared import kept_cells, read_part
    from i2st_model.comparing.comparison_table import comparison_table
    from i2st_model.evaluating.config import EvaluateConfig
    from i2st_model.evaluating.method_table import cell_configs
    from i2st_model.reporting.tables import render, require_form

    require_form(form)
    if as_json:
        refuse_typed(ctx, "form", "--json")
    sides = [
        [read_part(word, root=RUNS) for word in words(name, side)]
        for name, side in (("A", first), ("B", second))
    ]
    cells = kept_cells(sides)
    asked = [part.method for side in sides for part in side if part.method is not None]
    _refuse_unread(ctx, kept=bool(cells), evaluated=bool(asked), replayed=episode_file is not None)
    config = EvaluateConfig(
        split=split,
        queries=queries,
        episodes=episodes,
        seed=seed,
        disjoint_groups=disjoint_groups,
        drop_small_classes=drop_small_classes,
        precision=precision,  # type: ignore[arg-type]
        device=device,
    )
    configs = cell_configs(config, numbers("--way", way), numbers("--shot", shot))
    ready: Sequence[Any] = ()
    if asked:
        use_threads(threads)
        shown = {"precision": precision, "device": device, "threads": threads}
        if not cells and episode_file is None:
            shown = {**asdict(config), "way": way, "shot": shot, **shown}
        ready = _open(asked, shards=shards, frames=frames, device=device, shown=shown)
        _require_fit(sides, cells, ready[0].store, other_features)
        cells = cells or open_cells(ready, configs, episode_file, other_features, drop_seen)
    live = _evaluate(asked, ready, cells, config)
    found = _compare(sides, cells, live)
    if as_json:
        values = [{**_facts(cell), **one.to_json()} for cell, one in zip(cells, found, strict=True)]
        show_json({"first": first, "second": second, "cells": values})
        return
    typer.echo(render(comparison_table((first, second), cells, found), form))


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


def _require_fit(
    sides: Sequence[Sequence[Any]], cells: Sequence[Any], store: Any, other_features: bool
) -> None:
    """Refuse shards that lack what a result file is about."""
    from i2st_model.records.episode_checks import require_fit

    for cell in cells:
        word = next(part.word for side in sides for part in side if part.kept)
        require_fit(Path(word), cell, store, other_features=other_features)


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
    of = {
        (one.label if one.checkpoint is None else one.checkpoint.path.parent): [
            evaluation.result for evaluation in own
        ]
        for one, own in zip(ready, found, strict=True)
    }
    return {one: of[one.run or one.method] for one in asked}


def _compare(
    sides: Sequence[Sequence[Any]], cells: Sequence[Any], live: Mapping[Any, Sequence[Any]]
) -> list[Any]:
    from i2st_model.comparing.compared import in_order_of_seeds, on_cell
    from i2st_model.comparison import compare as compare_results

    found = []
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
    return found


def _facts(cell: Any) -> dict[str, Any]:
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
