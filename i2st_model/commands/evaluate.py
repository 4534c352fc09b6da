"""`i2st evaluate`: accuracy on unseen classes."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from i2st_model.commands.opening import open_features, use_threads
from i2st_model.commands.options import Seed, Threads
from pipeline.commands.console import note, show_json, show_settings, show_table
from pipeline.commands.options import Device, Json
from pipeline.commands.progress import progress


def evaluate(
    shards: Annotated[
        Path | None, typer.Option(help="Folder of shards.  [default: those of the run]")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of a run.  [default: the newest in runs/]")
    ] = None,
    method: Annotated[str, typer.Option(help="i2st, protonet, otam or bi_mhm.")] = "i2st",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    way: Annotated[int, typer.Option(help="Classes per episode.")] = 5,
    shot: Annotated[int, typer.Option(help="Support clips per class.")] = 1,
    queries: Annotated[int, typer.Option(help="Query clips per class.")] = 1,
    episodes: Annotated[int, typer.Option(help="Episodes.")] = 10_000,
    seed: Seed = 0,
    frames: Annotated[
        int | None, typer.Option(help="Frames of a clip.  [default: the run's, or all stored]")
    ] = None,
    disjoint_groups: Annotated[
        bool, typer.Option(help="Support and query from different source videos.")
    ] = False,
    drop_small_classes: Annotated[
        bool, typer.Option(help="Leave out classes with too few videos.")
    ] = False,
    per_class: Annotated[bool, typer.Option(help="Print the accuracy of each class.")] = True,
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Accuracy on unseen classes: mean over episodes with its 95 % half-width."""
    from i2st_model.evaluation import EvaluateConfig
    from i2st_model.evaluation import evaluate as measure
    from i2st_model.load_method import TRAINED, load_method
    from i2st_model.runs import find_newest_run, find_newest_shards
    from i2st_model.settings import recorded_run

    config = EvaluateConfig(
        split=split,
        way=way,
        shot=shot,
        queries=queries,
        episodes=episodes,
        seed=seed,
        disjoint_groups=disjoint_groups,
        drop_small_classes=drop_small_classes,
        device=device,
    )
    if method == TRAINED:
        run = run or find_newest_run(Path("runs"))
        recorded = recorded_run(run)
        shards, frames = shards or recorded.shards, frames or recorded.train.frames
        note(f"run: {run}")
    elif shards is None and any(Path("runs").glob("*/checkpoint.safetensors")):
        # The same shards as the trained network's, so that methods are compared on the same clips.
        shards = recorded_run(find_newest_run(Path("runs"))).shards
    folder = shards or find_newest_shards(Path("shards"))
    show_settings({"method": method, **asdict(config), "frames": frames, "threads": threads})
    use_threads(threads)
    store = open_features(folder, frames, run=run, device=device)
    ready, checkpoint = load_method(method, store, shards=folder, run=run, device=device)
    with progress("episodes") as show:
        found = measure(
            ready,
            store,
            config,
            checkpoint=checkpoint,
            on_progress=lambda p: show(p.episodes, p.num_episodes, ""),
        )
    if as_json:
        show_json(found.to_json())
        return
    if per_class:
        show_table([(n, f"{a:.1f}") for n, a in found.per_class.items()], ("class", "accuracy"))
    typer.echo(
        f"{found.method} on {found.dataset} {split} ({len(found.per_class)} classes, "
        f"{found.num_videos} videos), {way}-way {shot}-shot, {episodes} episodes: "
        f"{found.accuracy.mean:.2f} +/- {found.accuracy.half_width:.2f} %"
    )
