"""`i2st sweep`: trains and evaluates variants of settings on the same episodes, into one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.asked_episodes import CELL
from i2st_model.commands.lists import new_file, numbers, settings_over
from i2st_model.commands.opening import training_settings
from i2st_model.commands.options import (
    AllowNondeterministic,
    Queries,
    Seed,
    Shards,
    Shots,
    Threads,
    Ways,
)
from i2st_model.commands.sweep_steps import SweepSteps
from pipeline.commands.console import note, show_json, show_settings, table_width
from pipeline.commands.options import Device, Json, refuse_typed, typed_names
from pipeline.errors import ConfigError

OF_TRAINING = ("method", "seed", "preset", "select", "device")
"""Flags that are fields of TrainConfig, with its defaults; `train_episodes` is `episodes`."""


def sweep(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            help="frames, instances, attention, matching, num_instances, weights or ways."
        ),
    ] = None,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<name=values>",
            help="A setting and its values: beta=0,0.5,1; repeat.  See docs/method.md.",
        ),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="All combinations; else one setting at a time.")
    ] = False,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="<int>", help="Trainings of each variant.")
    ] = 1,
    shards: Shards = None,
    method: Annotated[str, typer.Option(help="What is trained.")] = "i2st",
    train_episodes: Annotated[int, typer.Option(help="Training episodes of each run.")] = 10_000,
    preset: Annotated[str, typer.Option(help="i2st, linear, pool_linear or specified.")] = "i2st",
    select: Annotated[
        str, typer.Option(help="val keeps the weights best on val episodes; last the last.")
    ] = "val",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="<name=value>", help="A setting of all variants."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings of all variants.")
    ] = None,
    split: Annotated[str, typer.Option(help="val, or test for a final table.")] = "val",
    way: Ways = "5",
    shot: Shots = "1",
    queries: Queries = 1,
    episodes: Annotated[int, typer.Option(help="Episodes to evaluate on.")] = 10_000,
    episode_seed: Annotated[
        int, typer.Option(min=0, metavar="<int>", help="Draws these episodes.")
    ] = 0,
    seed: Seed = 0,
    interval: Annotated[
        str,
        typer.Option(help="Of differences, over: episodes, videos (or sources), classes, seeds."),
    ] = "classes",
    form: Annotated[
        str, typer.Option("--format", help="table, markdown, csv, latex or json.")
    ] = "table",
    save: Annotated[
        Path | None, typer.Option(help="Write episodes and predictions of every run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, metavar="<int>", help="Trainings at a time.")] = 1,
    allow_nondeterministic: AllowNondeterministic = False,
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Ablations: train every variant, evaluate all, print one table.

    What is trained already is not trained again.
    """
    from i2st_model.evaluating.config import EvaluateConfig
    from i2st_model.records.results import save_results
    from i2st_model.reporting.tables import render, require_form
    from i2st_model.settings import change_config
    from i2st_model.sweeping.ablations import choose_ablation
    from i2st_model.sweeping.sweep_table import compare_variants, sweep_notes, sweep_table
    from i2st_model.training.config import TrainConfig

    require_form(form)
    if as_json:
        refuse_typed(ctx, "form", "--json")
    new_file(save, "--save")
    over_what = _interval_named(interval, seeds)
    ablation = choose_ablation(name, settings_over("--over", over or []), grid=grid)
    typed = typed_names(ctx)
    flags = {field: ctx.params[field] for field in OF_TRAINING if field in typed}
    flags |= {"episodes": train_episodes} if "train_episodes" in typed else {}
    start = change_config(TrainConfig(), flags, setting or [], file=config)
    asked = EvaluateConfig(
        split=split, queries=queries, episodes=episodes, seed=episode_seed, device=device
    )
    typed_ways = numbers("--way", way) if "way" in typed else None
    sweeping = SweepSteps(start, ablation, shards, seeds)
    cells = sweeping.draw(asked, typed_ways, numbers("--shot", shot))
    _show_settings(start, seeds, asked, cells)
    if dry_run:
        _show_plan(sweeping.plan(), form, as_json)
        return
    sweeping.train(jobs, threads, allow_nondeterministic)
    found = sweeping.evaluate(cells, asked)
    if save is not None:
        every = [result for by_cell in found for own in by_cell for result in own]
        note(f"saved {save}: sha256 {save_results(save, every)}")
    compared = compare_variants(found)
    notes = sweep_notes(
        cells[0], compared, seeds=seeds, over=over_what, selected_on_val=start.select == "val"
    )
    if as_json:
        show_json({"variants": sweeping.to_json(cells, compared), "notes": notes})
        return
    table = sweep_table(sweeping.variants, cells, compared, over=over_what, notes=notes)
    typer.echo(render(table, form, table_width()))


def _show_settings(start: Any, seeds: int, asked: Any, cells: Sequence[Any]) -> None:
    """Print settings of the trainings and of the evaluation, as their flags are called."""
    drawn = {name: list(dict.fromkeys(getattr(one, name) for one in cells)) for name in CELL}
    evaluated = {
        "split": asked.split,
        **drawn,
        "queries": asked.queries,
        "episodes": asked.episodes,
        "episode_seed": asked.seed,
    }
    trained = {
        f"train_{name}" if name in evaluated else name: value
        for name, value in training_settings(start).items()
    }
    show_settings({**trained, "seeds": seeds, **evaluated})


def _show_plan(runs: Sequence[Mapping[str, Any]], form: str, as_json: bool) -> None:
    """Print what a sweep would train, and what is there already."""
    from i2st_model.reporting.tables import ResultTable, Row, render

    steps = [run["steps"] for run in runs if not run["trained"]]
    if as_json:
        show_json({"runs": runs, "to_train": len(steps), "steps": sum(steps)})
        return
    rows = tuple(
        Row(
            name=run["settings"],
            cells=(
                str(run["seed"]),
                str(run["steps"]),
                "yes" if run["trained"] else "no",
                run["run"],
            ),
        )
        for run in runs
    )
    told = f"{len(steps)} of {len(runs)} runs would be trained, {sum(steps)} steps in all."
    columns = ("seed", "steps", "trained", "run")
    table = ResultTable(columns=columns, rows=rows, notes=(told,), head="settings")
    typer.echo(render(table, form, table_width()))


def _interval_named(word: str, seeds: int) -> str:
    """Key of the interval; that over videos is over their sources where these are known."""
    from i2st_model.comparison import QUESTIONS

    name = "videos" if word == "sources" else word
    if name not in QUESTIONS:
        raise ConfigError(
            f"interval={word!r} is unknown; known: {', '.join(QUESTIONS)}, sources; one is needed; "
            "pass one"
        )
    if name == "seeds" and seeds == 1:
        raise ConfigError(
            "interval='seeds' with seeds=1; several trainings of each variant were needed; "
            "pass --seeds 3"
        )
    return name
