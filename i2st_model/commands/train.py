"""`i2st train`: its flags, and what it says while it trains."""

from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.opening import use_threads
from i2st_model.commands.options import Seed, Shards, Threads
from i2st_model.commands.training_run import RUNS, first_speaks, train_in_folder
from pipeline.commands.console import show_result
from pipeline.commands.options import Device, Json, typed_names


def train(
    ctx: typer.Context,
    shards: Shards = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run.  [default: runs/DATE-DATASET]")
    ] = None,
    method: Annotated[
        str, typer.Option(help="What is trained: i2st, or another method that has weights.")
    ] = "i2st",
    episodes: Annotated[int, typer.Option(help="Training episodes in all.")] = 10_000,
    way: Annotated[int, typer.Option(help="Classes per episode.")] = 5,
    shot: Annotated[int, typer.Option(help="Support clips per class.")] = 1,
    queries: Annotated[int, typer.Option(help="Query clips per class.")] = 2,
    seed: Seed = 0,
    frames: Annotated[
        int | None, typer.Option(help="Frames of a clip.  [default: all stored]")
    ] = None,
    preset: Annotated[str, typer.Option(help="i2st, linear, pool_linear or specified.")] = "i2st",
    masks: Annotated[
        str, typer.Option(help="Mask supervision: true, shuffled (control) or off.")
    ] = "true",
    select: Annotated[
        str, typer.Option(help="val keeps the weights best on val episodes; last the last.")
    ] = "val",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="<name=value>", help="Any other setting; repeat.  See docs/method.md."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; flags and --set override it.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every setting as YAML and stop.")
    ] = False,
    init_from: Annotated[
        str | None, typer.Option(help="Finished run whose weights this one starts from.")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with a run that was cut short.", show_default=False)
    ] = False,
    allow_nondeterministic: Annotated[
        bool,
        typer.Option(
            "--allow-nondeterministic", help="Resume on other threads or another device, too."
        ),
    ] = False,
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stage two: train by episodes, from shards. A killed run resumes to the same weights."""
    from i2st_model.runs import find_newest_unfinished
    from i2st_model.settings import change_config, recorded_run
    from i2st_model.training.config import TrainConfig
    from i2st_model.training.method_names import require_known
    from i2st_model.training.ranks import joined_ranks

    typed = typed_names(ctx)
    flags = {name: ctx.params[name] for name in FLAGS if name in typed}
    start = TrainConfig()
    if resume:
        run = run or find_newest_unfinished(RUNS)
        recorded = recorded_run(run)
        start = recorded.train
        threads = threads if "threads" in typed else recorded.threads
    if "method" in flags:
        require_known(method)
    settings = change_config(start, flags, setting or [], file=config)
    if print_config:
        from i2st_model.settings_file import write_settings
        from i2st_model.settings_scope import network_settings

        values = settings.to_dict() | {"network": network_settings(settings)}
        typer.echo(write_settings(values), nl=False)
        return
    use_threads(threads)
    with joined_ranks(device=settings.device) as ranks, first_speaks(ranks):
        report = train_in_folder(
            settings,
            ranks,
            shards=shards,
            run=run,
            resume=resume,
            allow_nondeterministic=allow_nondeterministic,
        )
    if ranks.first:
        show_result(_summary(report), as_json)


FLAGS = (
    "method",
    "episodes",
    "way",
    "shot",
    "queries",
    "seed",
    "frames",
    "preset",
    "masks",
    "select",
    "init_from",
    "device",
)
"""Those that are fields of TrainConfig, with its defaults."""


def _summary(report: Any) -> dict[str, Any]:
    accuracy = report.val_accuracy
    return {
        "run": str(report.run_folder),
        "checkpoint": str(report.checkpoint),
        "steps": report.num_steps,
        "selected": report.selected,
        "step": report.step,
        "val_accuracy": None if accuracy is None else round(accuracy, 2),
        "train_classes": len(report.train_classes),
        "seconds": round(report.seconds, 1),
    }
