"""How `i2st train` trains in a folder, and what it says meanwhile."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import date
from pathlib import Path
from typing import Any

import typer

from i2st_model.commands.opening import (
    newest_shards,
    open_features,
    show_training_settings,
    used_threads,
)
from pipeline.commands.console import note
from pipeline.commands.progress import progress
from pipeline.errors import ConfigError, I2STError

RUNS = Path("runs")


@contextmanager
def first_speaks(ranks: Any) -> Iterator[None]:
    """Let the first of the processes that torchrun started print, and fail for all.

    Args:
        ranks: the processes.

    Raises:
        Exit: in the others, where any fails.
    """
    if ranks.first:
        yield
        return
    try:
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
            yield
    except I2STError:
        # torchrun ends all processes when one fails, and the first has yet to say why.
        raise typer.Exit(0) from None


def train_in_folder(
    config: Any,
    ranks: Any,
    *,
    shards: Path | None,
    run: Path | None,
    resume: bool,
    allow_nondeterministic: bool,
) -> Any:
    """Open the shards and train in a folder, saying how far it is.

    Args:
        config: the TrainConfig.
        ranks: the processes that share the run.
        shards: folder of the shards; None takes those of the run that goes on, or the newest.
        run: folder of the run; None makes a new one in runs/
        resume: go on with what is in it.
        allow_nondeterministic: also on other threads or another device.

    Returns:
        The TrainReport.
    """
    from i2st_model.training.run import train as fit
    from i2st_model.training.run_folder import name_latest

    with ranks.together():
        folder = shards or _shards_of(run if resume else None)
        device = ranks.own_device(config.device)
        store = open_features(folder, config.frames, encoder=config.encoder, device=device)
    folder = Path(ranks.from_first(lambda: str(run or _new_run(config, store))))
    shown = False
    with progress("steps") as show:

        def tell(p: Any) -> None:
            nonlocal shown
            if not shown:  # not before: a run that is refused is told why, in one line
                note(f"run: {folder}")
                show_training_settings(config, threads=used_threads())
                shown = True
            for sentence in p.notes:
                note(sentence)
            show(p.step, p.num_steps, _train_line(p), under_way=p.under_way)

        report = fit(
            config,
            store,
            folder,
            resume=resume,
            allow_nondeterministic=allow_nondeterministic,
            on_progress=tell,
        )
    if ranks.first and folder.parent.resolve() == RUNS.resolve():
        name_latest(folder)
    return report


def _shards_of(run: Path | None) -> Path:
    """Shards that a run was begun with; the newest for a new one."""
    from i2st_model.runs import read_config

    if run is None:
        return newest_shards(Path("shards"))
    shards = Path(str(read_config(run).get("shards")))
    if not shards.is_dir():
        raise ConfigError(
            f"{run} was begun with the shards {shards}, which are absent; they were needed to "
            "resume; put them back or name their folder with --shards, or name another --run"
        )
    return shards


def _new_run(config: Any, store: Any) -> Path:
    from i2st_model.runs import unfinished_runs
    from i2st_model.training.run_folder import new_run_folder

    for old in unfinished_runs(RUNS, digest=store.index.digest):
        note(f"unfinished: {old}; `i2st train --run {old} --resume` would go on with it")
    dataset = store.index.dataset_name
    name = dataset if config.method == "i2st" else f"{dataset}-{config.method}"
    return new_run_folder(RUNS, name, today=date.today())


def _train_line(p: Any) -> str:
    parts = [f"{p.episodes} episodes"]
    parts += [] if p.loss is None else [f"loss {p.loss:.3f}", f"accuracy {p.accuracy:.1f}"]
    parts += [] if p.val_accuracy is None else [f"val {p.val_accuracy:.1f}"]
    return ", ".join(parts)
