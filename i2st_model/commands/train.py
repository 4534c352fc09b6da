"""`i2st train`: its flags, and what it says while it trains."""

from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.opening import open_features, use_threads
from i2st_model.commands.options import Seed, Shards, Threads
from pipeline.commands.console import note, show_result, show_settings
from pipeline.commands.options import Device, Json, typed_names
from pipeline.commands.progress import progress


def train(
    ctx: typer.Context,
    shards: Shards = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the run.  [default: runs/DATE-DATASET]")
    ] = None,
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
    resume: Annotated[bool, typer.Option(help="Go on with a run that was cut short.")] = False,
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stage two: train I2ST by episodes from shards; a killed run resumes to the same weights."""
    from i2st_model.runs import (
        discard_unused,
        find_newest_shards,
        find_newest_unfinished,
        new_run_folder,
        unfinished_runs,
    )
    from i2st_model.settings import change_config, recorded_run
    from i2st_model.training.config import TrainConfig
    from i2st_model.training.run import train as fit

    flags = {
        "episodes": episodes,
        "way": way,
        "shot": shot,
        "queries": queries,
        "seed": seed,
        "frames": frames,
        "preset": preset,
        "masks": masks,
        "select": select,
        "device": device,
    }
    if resume:
        typed = {name: flags[name] for name in flags if name in typed_names(ctx)}
        run = run or find_newest_unfinished(Path("runs"))
        recorded = recorded_run(run)
        shards = shards or recorded.shards
        config = change_config(recorded.train, typed, setting or [])
    else:
        config = change_config(TrainConfig(), flags, setting or [])
        for old in unfinished_runs(Path("runs")) if run is None else ():
            note(f"unfinished: {old}; `i2st train --run {old} --resume` would go on with it")
    folder = shards or find_newest_shards(Path("shards"))
    use_threads(threads)
    store = open_features(folder, config.frames, encoder=config.encoder, device=config.device)
    run = run or new_run_folder(Path("runs"), store.index.dataset_name, today=date.today())
    note(f"run: {run}")
    show_settings({**asdict(config), "threads": threads})
    with progress("steps") as show:

        def tell(p: Any) -> None:
            for sentence in p.notes:
                note(sentence)
            show(p.step, p.num_steps, _train_line(p))

        try:
            report = fit(config, store, run, resume=resume, on_progress=tell)
        finally:
            discard_unused(run)
    values = {
        "run": str(report.run_folder),
        "checkpoint": str(report.checkpoint),
        "steps": report.num_steps,
        "selected": report.selected,
        "step": report.step,
        "val_accuracy": None if report.val_accuracy is None else round(report.val_accuracy, 2),
        "train_classes": len(report.train_classes),
        "seconds": round(report.seconds, 1),
    }
    show_result(values, as_json)


def _train_line(p: Any) -> str:
    parts = [f"{p.episodes} episodes"]
    parts += [] if p.loss is None else [f"loss {p.loss:.3f}", f"accuracy {p.accuracy:.1f}"]
    parts += [] if p.val_accuracy is None else [f"val {p.val_accuracy:.1f}"]
    return ", ".join(parts)
