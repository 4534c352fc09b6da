"""What `i2st sweep` does: plan the runs, draw the episodes, train what is absent, evaluate all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from i2st_model.commands.method_opening import RUNS, SHARDS
from i2st_model.commands.opening import newest_shards, open_features
from pipeline.commands.console import note
from pipeline.commands.progress import progress


class SweepSteps:
    """The shards, the variants and their runs; says what it does on the way."""

    def __init__(self, start: Any, ablation: Any, shards: Path | None, seeds: int) -> None:
        from i2st_model.sweeping.planned_runs import plan_runs
        from i2st_model.sweeping.variants import plan_variants

        self.ablation = ablation
        self.shards = shards or newest_shards(SHARDS)
        self.store = open_features(self.shards, None, encoder=start.encoder, device=start.device)
        self.variants = plan_variants(start, ablation.variants, num_stored=self.store.num_stored)
        self.planned = plan_runs(
            self.variants,
            seeds=seeds,
            root=RUNS,
            dataset=self.store.index.dataset_name,
            digest=self.store.index.digest,
        )

    @property
    def runs(self) -> list[Any]:
        """All of them, variant by variant."""
        return [run for own in self.planned for run in own]

    def draw(self, asked: Any, typed_ways: Sequence[int] | None, shots: Sequence[int]) -> list[Any]:
        """Draw the episodes; before any training, so that what cannot be is found out first."""
        from i2st_model.evaluating.method_table import cell_configs, draw_cells
        from i2st_model.sweeping.trainable import require_trainable
        from i2st_model.sweeping.variants import copies_to_be_seen, require_apart

        require_trainable(self.variants, self.store)
        present = len(self.store.classes_of(asked.split))
        wanted = list(typed_ways or self.ablation.ways or [asked.way])
        # A way that was typed is meant; a default gives way, as that of val does in training.
        least = min(wanted) if typed_ways else max(2, min(present, *wanted))
        kept = [way for way in wanted if way <= present] or [least]
        if kept != wanted:
            note(f"{asked.split} has {present} classes: ways {kept} instead of {wanted}")
        copies = copies_to_be_seen(self.variants, self.store, asked.split)
        if copies:
            note(f"left out, as they equal train videos byte for byte: {copies.counted()}")
        cells = draw_cells(self.store, cell_configs(asked, kept, shots), copies)
        require_apart(self.variants, cells, self.store)
        return cells

    def absent(self) -> list[Any]:
        """Return the runs that are not trained yet; the others must be what their folders say."""
        from i2st_model.sweeping.planned_runs import require_planned

        for run in self.runs:
            if run.finished:
                require_planned(run)
        return [run for run in self.runs if not run.finished]

    def plan(self) -> list[dict[str, Any]]:
        """Say of every run what it is, whether it is there already, and how long it is."""
        absent = self.absent()
        return [
            {
                "settings": run.variant,
                "seed": run.config.seed,
                "steps": _steps_of(run),
                "trained": run not in absent,
                "run": str(run.folder),
            }
            for run in self.runs
        ]

    def train(self, jobs: int, threads: int, allow_nondeterministic: bool) -> None:
        """Train what is absent, and say which that was."""
        from i2st_model.sweeping.sweep_runs import train_runs

        absent = self.absent()
        if len(absent) < len(self.runs):
            note(f"trained already: {len(self.runs) - len(absent)} of {len(self.runs)} runs")
        if not absent:
            return
        doing: dict[Path, str] = {}
        finished = 0
        with progress("trainings") as show:

            def tell(run: Any, step: int, under_way: str) -> None:
                what = under_way or f"step {step}/{_steps_of(run)}"
                doing[run.folder] = f"{what}, {_name(run)}"
                words = "; ".join(doing.values())
                show(finished, len(absent), words, under_way=words if under_way else "")

            show(0, len(absent), "")
            for run in train_runs(
                absent,
                self.shards,
                jobs=jobs,
                threads=threads,
                allow_nondeterministic=allow_nondeterministic,
                on_step=tell,
            ):
                finished += 1
                doing.pop(run.folder, None)
                show(finished, len(absent), f"{_name(run)}: {run.folder}")

    def evaluate(self, cells: Sequence[Any], asked: Any) -> list[Any]:
        """Evaluate every run on the same episodes."""
        from i2st_model.sweeping.sweep_runs import evaluate_runs

        done = 0
        with progress("evaluations") as show:

            def tell(run: Any) -> None:
                nonlocal done
                done += 1
                show(done, len(self.runs), run.variant)

            show(0, len(self.runs), "")
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


def _name(run: Any) -> str:
    return f"{run.variant} seed {run.config.seed}"


def _steps_of(run: Any) -> int:
    from i2st_model.training.schedules import num_steps

    return num_steps(run.config.episodes, run.config.episodes_per_step)
