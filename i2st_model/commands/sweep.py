"""`i2st sweep`: trains and evaluates variants of settings on the same episodes, into one table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.lists import new_file, numbers, words
from i2st_model.commands.method_opening import RUNS, SHARDS
from i2st_model.commands.options import Seed, Shards, Threads
from pipeline.commands.console import note, show_json, show_settings
from pipeline.commands.options import Device, Json, refuse_typed, typed_names
from pipeline.commands.progress import progress
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
        typer.Option(help="A setting and its values: beta=0,0.5,1; repeat.  See docs/method.md."),
    ] = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="All combinations; else one setting at a time.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each variant.")] = 1,
    shards: Shards = None,
    method: Annotated[str, typer.Option(help="What is trained.")] = "i2st",
    train_episodes: Annotated[int, typer.Option(help="Training episodes of each run.")] = 10_000,
    preset: Annotated[str, typer.Option(help="i2st, linear, pool_linear or specified.")] = "i2st",
    select: Annotated[
        str, typer.Option(help="val keeps the weights best on val episodes; last the last.")
    ] = "val",
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of all variants: name=value.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings of all variants.")
    ] = None,
    split: Annotated[str, typer.Option(help="val, or test for a final table.")] = "val",
    way: Annotated[str, typer.Option(help="Classes per episode; or several: 5,10.")] = "5",
    shot: Annotated[str, typer.Option(help="Support clips per class; or several: 1,3,5.")] = "1",
    queries: Annotated[int, typer.Option(help="Query clips per class.")] = 1,
    episodes: Annotated[int, typer.Option(help="Episodes to evaluate on.")] = 10_000,
    episode_seed: Annotated[int, typer.Option(min=0, help="Of these episodes.")] = 0,
    seed: Seed = 0,
    interval: Annotated[
        str, typer.Option(help="Of differences, over: episodes, videos, classes or seeds.")
    ] = "classes",
    form: Annotated[
        str, typer.Option("--format", help="table, markdown, csv, latex or json.")
    ] = "table",
    save: Annotated[
        Path | None, typer.Option(help="Write episodes and predictions of every run.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time.")] = 1,
    threads: Threads = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Ablations: train every variant that is not trained yet, evaluate all, print one table."""
    from i2st_model.evaluating.config import EvaluateConfig
    from i2st_model.records.results import save_results
    from i2st_model.reporting.tables import render, require_form
    from i2st_model.settings import change_config
    from i2st_model.sweeping.sweep_table import compare_variants, sweep_table
    from i2st_model.training.config import TrainConfig

    require_form(form)
    if as_json:
        refuse_typed(ctx, "form", "--json")
    new_file(save, "--save")
    _require_interval(interval, seeds)
    ablation = _ablation(name, over or [], grid)
    typed = typed_names(ctx)
    flags = {field: ctx.params[field] for field in OF_TRAINING if field in typed}
    flags |= {"episodes": train_episodes} if "train_episodes" in typed else {}
    start = change_config(TrainConfig(), flags, setting or [], file=config)
    asked = EvaluateConfig(
        split=split, queries=queries, episodes=episodes, seed=episode_seed, device=device
    )
    ways = numbers("--way", way) if "way" in typed or not ablation.ways else list(ablation.ways)
    sweeping = _Sweep(start, ablation, shards, seeds)
    cells = sweeping.draw(asked, ways, numbers("--shot", shot))
    sweeping.train(jobs, threads)
    found = sweeping.evaluate(cells, asked)
    if save is not None:
        every = [result for by_cell in found for own in by_cell for result in own]
        note(f"saved {save}: sha256 {save_results(save, every)}")
    compared = compare_variants(found)
    notes = _notes(cells[0], start, seeds, interval, split, compared)
    if as_json:
        show_json({"variants": sweeping.to_json(cells, compared), "notes": notes})
        return
    table = sweep_table(sweeping.variants, cells, compared, over=interval, notes=notes)
    typer.echo(render(table, form))


class _Sweep:
    """The shards, the variants and their runs, and what is said on the way."""

    def __init__(self, start: Any, ablation: Any, shards: Path | None, seeds: int) -> None:
        from i2st_model.commands.opening import open_features
        from i2st_model.runs import find_newest_shards
        from i2st_model.sweeping.sweep import plan_variants
        from i2st_model.sweeping.sweep_runs import plan_runs

        self.shards = shards or find_newest_shards(SHARDS)
        self.store = open_features(self.shards, None, encoder=start.encoder, device=start.device)
        self.variants = plan_variants(start, ablation.variants, num_stored=self.store.num_stored)
        self.planned = plan_runs(
            self.variants,
            seeds=seeds,
            root=RUNS,
            dataset=self.store.index.dataset_name,
            digest=self.store.index.digest,
        )
        show_settings({**start.to_dict(), "seeds": seeds})

    @property
    def runs(self) -> list[Any]:
        """All of them, variant by variant."""
        return [run for own in self.planned for run in own]

    def draw(self, asked: Any, ways: Sequence[int], shots: Sequence[int]) -> list[Any]:
        """Draw the episodes; before any training, so that too few classes are found out first."""
        from i2st_model.evaluating.method_table import cell_configs, draw_cells

        present = len(self.store.classes_of(asked.split))
        kept = [way for way in ways if way <= present or way == min(ways)]
        if kept != list(ways):
            note(f"{asked.split} has {present} classes: ways {kept} of {list(ways)}")
        return draw_cells(self.store, cell_configs(asked, kept, shots))

    def train(self, jobs: int, threads: int) -> None:
        """Train what is absent, and say which that was."""
        from i2st_model.sweeping.sweep_runs import train_runs

        absent = [run for run in self.runs if not run.finished]
        if len(absent) < len(self.runs):
            note(f"trained already: {len(self.runs) - len(absent)} of {len(self.runs)} runs")
        with progress("trainings") as show:
            trained = train_runs(absent, self.shards, jobs=jobs, threads=threads)
            for number, run in enumerate(trained, start=1):
                show(number, len(absent), f"{run.variant} seed {run.config.seed}: {run.folder}")

    def evaluate(self, cells: Sequence[Any], asked: Any) -> list[Any]:
        """Evaluate every run on the same episodes."""
        from i2st_model.sweeping.sweep_runs import evaluate_runs

        done = 0
        with progress("evaluations") as show:

            def tell(run: Any) -> None:
                nonlocal done
                done += 1
                show(done, len(self.runs), run.variant)

            return evaluate_runs(self.planned, cells, self.shards, asked, on_run=tell)

    def to_json(
        self, cells: Sequence[Any], compared: Sequence[Sequence[Any]]
    ) -> list[Mapping[str, Any]]:
        """Every variant with its runs and its comparisons to the first one."""
        return [
            {
                "settings": variant.name,
                "runs": [str(run.folder) for run in runs],
                "cells": [
                    {"way": cell.way, "shot": cell.shot, **one.to_json()}
                    for cell, one in zip(cells, own, strict=True)
                ],
            }
            for variant, runs, own in zip(self.variants, self.planned, compared, strict=True)
        ]


def _ablation(name: str | None, over: Sequence[str], grid: bool) -> Any:
    from i2st_model.sweeping.sweep import ABLATIONS, Ablation, variants_over

    if (name is None) == (not over):
        raise ConfigError(
            f"sweep has {'neither a name nor' if name is None else 'a name and'} --over; one of "
            f"both was needed; pass {', '.join(ABLATIONS)}, or e.g. --over beta=0,0.5,1"
        )
    if name is None:
        axes: dict[str, list[str]] = {}
        for word in over:
            setting, equals, values = word.partition("=")
            if not equals or setting in axes:
                raise ConfigError(
                    f"--over {word!r} cannot be read; a setting and its values, each setting once, "
                    "was needed; write e.g. --over beta=0,0.5,1"
                )
            axes[setting] = words("--over", values)
        return Ablation(about="", variants=variants_over(axes, grid=grid))
    if name not in ABLATIONS:
        raise ConfigError(
            f"unknown sweep {name!r}; known: {', '.join(ABLATIONS)}; pass one of these, or --over"
        )
    return ABLATIONS[name]


def _require_interval(name: str, seeds: int) -> None:
    from i2st_model.comparison import QUESTIONS

    if name not in QUESTIONS:
        raise ConfigError(
            f"interval={name!r} is unknown; known: {', '.join(QUESTIONS)}; one is needed; pass one"
        )
    if name == "seeds" and seeds == 1:
        raise ConfigError(
            "interval='seeds' with seeds=1; several trainings of each variant were needed; "
            "pass --seeds 3"
        )


def _notes(
    cell: Any, start: Any, seeds: int, interval: str, split: str, compared: Sequence[Sequence[Any]]
) -> list[str]:
    """What the figures are, and what they must not be taken for."""
    first, several = compared[0][0], len(compared) > 1
    differences = f"; differences with 95 % intervals over {interval}" if several else ""
    notes = [
        f"{cell.dataset} {split}: mean accuracy in percent over {cell.num_episodes} episodes of "
        f"{first.num_classes} classes and {seeds} {'trainings' if seeds > 1 else 'training'}, +/- "
        f"95 % half-width over episodes{differences}; digest {cell.digest[:12]}.",
    ]
    if interval in first.why_not and several:
        notes.append(f"no interval over {interval}: {first.why_not[interval]}.")
    if split == "test":
        notes.append("Read on the test split: a setting chosen by this table is chosen on test.")
    elif split == "val" and start.select == "val":
        notes.append(
            "Val has chosen the step of the weights, too, so accuracies are a little high."
        )
    return notes
