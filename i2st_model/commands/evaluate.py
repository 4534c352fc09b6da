"""`i2st evaluate`: accuracy on unseen classes, of one method or of many on the same episodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.asked_episodes import (
    OF_EPISODES,
    asked_configs,
    asked_settings,
    note_chosen_on,
    open_cells,
)
from i2st_model.commands.lists import new_file, words
from i2st_model.commands.method_opening import open_methods
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
from pipeline.commands.console import note, printable, say, show_json, show_settings, table_width
from pipeline.commands.options import Device, Json, refuse_typed, typed_names
from pipeline.commands.progress import progress
from pipeline.errors import ConfigError


def evaluate(
    ctx: typer.Context,
    shards: RunShards = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="<path>",
            help="Folder of a run; repeat.  [default: the method's newest in runs/]",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="i2st, protonet, otam, ...; or several: a,b,c.  [default: i2st]"),
    ] = None,
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
    per_class: Annotated[bool, typer.Option(help="Print the accuracy of each class.")] = True,
    form: Form = None,
    save: Annotated[
        Path | None, typer.Option(help="Write episodes and predictions, for `i2st compare`.")
    ] = None,
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Accuracy on unseen classes, of one method or of many.

    The mean over episodes, with its 95 % half-width.
    """
    from i2st_model.evaluating.method_table import evaluate_methods, table_json
    from i2st_model.records.results import save_results
    from i2st_model.reporting.tables import require_form

    if episode_file is not None:
        refuse_typed(ctx, OF_EPISODES, "--episode-file")
    if form is not None:
        require_form(form)
    if as_json:
        refuse_typed(ctx, "form", "--json")
    new_file(save, "--save")
    _require_one_each(run or [])
    config, configs = asked_configs(ctx)
    shown = {**asked_settings(config, configs), "threads": threads}
    if episode_file is not None:
        for name in set(OF_EPISODES.split()) & set(shown):
            del shown[name]
    use_threads(threads)
    methods = open_methods(
        words("--method", method) if method is not None else None,
        run or [],
        shards=shards,
        frames=frames,
        device=device,
        on_settings=lambda chosen: show_settings({**chosen, **shown}),
    )
    cells = open_cells(
        methods,
        configs,
        episode_file=episode_file,
        other_features=other_features,
        drop_seen=drop_seen,
    )
    with progress("episodes") as show:
        found = evaluate_methods(
            methods,
            cells,
            config,
            on_progress=lambda now, label: show(now.episodes, now.num_episodes, label),
        )
    results = [one.result for own in found for one in own]
    note_chosen_on(results)
    if save is not None:
        note(f"saved {save}: sha256 {save_results(save, results)}")
    if as_json:
        single = len(results) == 1
        show_json(found[0][0].to_json() if single else table_json(methods, found))
        return
    _show(methods, found, form, per_class, asked="per_class" in typed_names(ctx))


def _require_one_each(runs: Sequence[Path]) -> None:
    """Refuse a list of runs as `i2st compare` takes it."""
    for run in runs:
        folders = str(run).split(",")
        if len(folders) > 1 and not run.exists():
            repeated = " ".join(f"--run {one.strip()}" for one in folders if one.strip())
            raise ConfigError(
                f"--run {run} is absent; the folder of one run was needed; repeat the flag: "
                f"{repeated}"
            )


def _show(
    methods: Sequence[Any],
    found: Sequence[Sequence[Any]],
    form: str | None,
    per_class: bool,
    asked: bool,
) -> None:
    """Print classes, and then accuracies: one as a sentence, several as a table."""
    from i2st_model.evaluating.method_table import class_table, result_table
    from i2st_model.reporting.tables import render

    sentence = len(methods) == len(found[0]) == 1 and form is None
    if per_class and (sentence or asked):
        typer.echo(render(class_table(methods, found), form or "table", table_width()))
    if sentence:
        say(printable(found[0][0].sentence()))
    else:
        if asked and per_class:
            typer.echo()
        typer.echo(render(result_table(methods, found), form or "table", table_width()))
