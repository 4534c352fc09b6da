"""`i2st train`: its flags, and what it says while it trains."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.opening import open_features, use_threads, used_threads
from i2st_model.commands.options import Seed, Shards, Threads
from pipeline.commands.console import note, show_result, show_settings
from pipeline.commands.options import Device, Json, typed_names
from pipeline.commands.progress import progress
from pipeline.errors import I2STError

RUNS = Path("runs")


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
        typer.Option("--set", help="Any other setting: name=value; repeat.  See docs/method.md."),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; flags and --set go before it.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print every setting as YAML and stop.")
    ] = False,
    init_from: Annotated[
        str | None, typer.Option(help="Finished run whose weights this one starts from.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on with a run that was cut short.")] = False,
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
    """Stage two: train I2ST by episodes from shards; a killed run resumes to the same weights."""
    from i2st_model.runs import find_newest_unfinished
    from i2st_model.settings import change_config, recorded_run
    from i2st_model.training.config import TrainConfig
    from i2st_model.training.ranks import joined_ranks

    typed = typed_names(ctx)
    flags = {name: ctx.params[name] for name in FLAGS if name in typed}
    start = TrainConfig()
    if resume:
        run = run or find_newest_unfinished(RUNS)
        recorded = recorded_run(run)
        shards, start = shards or recorded.shards, recorded.train
        threads = threads if "threads" in typed else recorded.threads
    settings = change_config(start, flags, setting or [], file=config)
    if print_config:
        from i2st_model.settings_file import write_settings

        typer.echo(write_settings(settings.to_dict()), nl=False)
        return
    use_threads(threads)
    with joined_ranks(device=settings.device) as ranks, _first_speaks(ranks):
        report = _fit(
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


@contextmanager
def _first_speaks(ranks: Any) -> Iterator[None]:
    """Let the first of the processes that torchrun started print, and fail for all."""
    if ranks.first:
        yield
        return
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            yield
    except I2STError:
        # torchrun ends all processes when one fails, and the first has yet to say why.
        raise typer.Exit(0) from None


def _fit(
    config: Any,
    ranks: Any,
    *,
    shards: Path | None,
    run: Path | None,
    resume: bool,
    allow_nondeterministic: bool,
) -> Any:
    """Open the shards and train in a folder; the report."""
    from i2st_model.runs import discard_unused, find_newest_shards, name_latest
    from i2st_model.training.run import train as fit

    with ranks.together():
        folder = shards or find_newest_shards(Path("shards"))
        device = ranks.own_device(config.device)
        store = open_features(folder, config.frames, encoder=config.encoder, device=device)
    folder = Path(ranks.from_first(lambda: str(run or _new_run(config, store))))
    note(f"run: {folder}")
    show_settings({**asdict(config), "threads": used_threads()})
    with progress("steps") as show:

        def tell(p: Any) -> None:
            for sentence in p.notes:
                note(sentence)
            show(p.step, p.num_steps, _train_line(p))

        try:
            report = fit(
                config,
                store,
                folder,
                resume=resume,
                allow_nondeterministic=allow_nondeterministic,
                on_progress=tell,
            )
        finally:
            if ranks.first:
                discard_unused(folder)
    if ranks.first and folder.parent.resolve() == RUNS.resolve():
        name_latest(folder)
    return report


def _new_run(config: Any, store: Any) -> Path:
    from i2st_model.runs import new_run_folder, unfinished_runs

    for old in unfinished_runs(RUNS):
        note(f"unfinished: {old}; `i2st train --run {old} --resume` would go on with it")
    dataset = store.index.dataset_name
    name = dataset if config.method == "i2st" else f"{dataset}-{config.method.partition(':')[0]}"
    return new_run_folder(RUNS, name, today=date.today())


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


def _train_line(p: Any) -> str:
    parts = [f"{p.episodes} episodes"]
    parts += [] if p.loss is None else [f"loss {p.loss:.3f}", f"accuracy {p.accuracy:.1f}"]
    parts += [] if p.val_accuracy is None else [f"val {p.val_accuracy:.1f}"]
    return ", ".join(parts)
