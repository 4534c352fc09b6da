"""`i2st evaluate`: accuracy on unseen classes, of one method or of many on the same episodes."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.lists import new_file, numbers, words
from i2st_model.commands.method_opening import open_methods
from i2st_model.commands.opening import use_threads
from i2st_model.commands.options import Seed, Threads
from pipeline.commands.console import note, show_json, show_settings, show_table
from pipeline.commands.options import Device, Json, refuse_typed, typed_names
from pipeline.commands.progress import progress

OF_EPISODES = "split way shot queries episodes seed disjoint_groups drop_small_classes drop_seen"
"""Flags that an episode file answers."""


def evaluate(
    ctx: typer.Context,
    shards: Annotated[
        Path | None, typer.Option(help="Folder of shards.  [default: those of the run]")
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a run; repeat.  [default: the method's newest in runs/]"),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="i2st, protonet, otam, ...; or several: a,b,c.  [default: i2st]"),
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
    per_class: Annotated[bool, typer.Option(help="Print the accuracy of each class.")] = True,
    form: Annotated[
        str | None, typer.Option("--format", help="table, markdown, csv, latex or json.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write episodes and predictions, for `i2st compare`.")
    ] = None,
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Accuracy on unseen classes: mean over episodes with its 95 % half-width."""
    from i2st_model.evaluating.config import EvaluateConfig
    from i2st_model.evaluating.method_table import (
        cell_configs,
        evaluate_methods,
        result_table,
        table_json,
    )
    from i2st_model.records.results import save_results
    from i2st_model.reporting.tables import render, require_form

    if episode_file is not None:
        refuse_typed(ctx, OF_EPISODES, "--episode-file")
    if form is not None:
        require_form(form)
    if as_json:
        refuse_typed(ctx, "form", "--json")
    new_file(save, "--save")
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
    shown = {**asdict(config), "way": way, "shot": shot, "threads": threads}
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
    cells = open_cells(methods, configs, episode_file, other_features, drop_seen)
    with progress("episodes") as show:
        found = evaluate_methods(
            methods,
            cells,
            config,
            on_progress=lambda now, label: show(now.episodes, now.num_episodes, label),
        )
    if save is not None:
        sha256 = save_results(save, [one.result for own in found for one in own])
        note(f"saved {save}: sha256 {sha256}")
    single = len(methods) == len(cells) == 1
    if as_json:
        show_json(found[0][0].to_json() if single else table_json(methods, found))
    elif single and form is None:
        _show_single(found[0][0], per_class)
    else:
        if per_class and "per_class" in typed_names(ctx):
            _show_classes(methods, found)
        typer.echo(render(result_table(methods, found), form or "table"))


def open_cells(
    methods: Sequence[Any],
    configs: Sequence[Any],
    episode_file: Path | None,
    other_features: bool,
    drop_seen: bool,
) -> list[Any]:
    """Sets of episodes: replayed from a file, or drawn for every way and shot."""
    from i2st_model.evaluating.method_table import draw_cells, seen_by_any
    from i2st_model.leaks import NOTHING_SEEN
    from i2st_model.records.episode_checks import require_fit
    from i2st_model.records.episode_files import load_episodes

    store = methods[0].store
    if episode_file is not None:
        replayed = load_episodes(episode_file)
        require_fit(episode_file, replayed, store, other_features=other_features)
        note(
            f"episodes: {episode_file}: {replayed.num_episodes} {replayed.way}-way "
            f"{replayed.shot}-shot, seed {replayed.seed}"
        )
        return [replayed]
    seen = seen_by_any(methods, configs[0]) if drop_seen else NOTHING_SEEN
    if seen:
        note(f"left out, as training saw them: {seen.counted()}")
    return draw_cells(store, configs, seen)


def _show_single(found: Any, per_class: bool) -> None:
    config = found.config
    if per_class:
        show_table([(n, f"{a:.1f}") for n, a in found.per_class.items()], ("class", "accuracy"))
    typer.echo(
        f"{found.method} on {found.dataset} {config.split} ({len(found.per_class)} classes, "
        f"{found.num_videos} videos), {config.way}-way {config.shot}-shot, {config.episodes} "
        f"episodes: {found.accuracy.mean:.2f} +/- {found.accuracy.half_width:.2f} %"
    )


def _show_classes(methods: Sequence[Any], found: Sequence[Sequence[Any]]) -> None:
    """One row per class, one column per method and cell."""
    every = [
        (f"{ready.label} {one.config.way}w{one.config.shot}s", one.per_class)
        for ready, own in zip(methods, found, strict=True)
        for one in own
    ]
    names = dict.fromkeys(name for _, per_class in every for name in per_class)
    rows = [
        (name, *(f"{per_class[name]:.1f}" if name in per_class else None for _, per_class in every))
        for name in names
    ]
    show_table(rows, ("class", *(title for title, _ in every)))
