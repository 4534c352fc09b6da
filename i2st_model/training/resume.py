"""Whether a run folder may be started, gone on with, or is finished."""

from pathlib import Path
from typing import Any

import torch

from data_manifests import __version__
from i2st_model.checkpoints import load_checkpoint
from i2st_model.runs import CHECKPOINT_NAME, CONFIG_NAME, read_config, write_json
from i2st_model.training.config import TrainConfig, TrainReport
from i2st_model.training.schedules import num_steps
from i2st_model.training.store import VideoStore
from pipeline.errors import ConfigError
from pipeline.shards.fingerprint import differences


def is_resumed(config: TrainConfig, store: VideoStore, run_folder: Path, *, resume: bool) -> bool:
    """Whether the folder holds this very run; the thread count is then set to the recorded one.

    Args:
        config: what is asked.
        store: features that are given.
        run_folder: the run's folder.
        resume: whether going on with a run is allowed.

    Returns:
        False where the folder holds no run.

    Raises:
        ConfigError: it holds a run and ``resume`` is False, or another run.
        CheckpointError: its config.json is damaged.
    """
    if not (run_folder / CONFIG_NAME).is_file():
        return False
    if not resume:
        raise ConfigError(
            f"{run_folder} holds a run already; an empty folder was needed; pass --resume to go on "
            "with it, or another --run"
        )
    recorded, asked = read_config(run_folder), _asked(config, store)
    differing = differences({key: recorded.get(key) for key in asked}, asked)
    if differing:
        raise ConfigError(
            f"{run_folder} is another run: {', '.join(differing)}; the same settings and shards "
            "were needed to resume; pass them, or another --run"
        )
    threads = recorded.get("threads")
    if isinstance(threads, int) and threads > 0:
        # Another number of threads sums in another order, and the weights differ in the last bit.
        torch.set_num_threads(threads)
    return True


def record_run(config: TrainConfig, store: VideoStore, run_folder: Path) -> None:
    """Write config.json: what is asked, and what else decides the bits of the weights."""
    decided = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    shards = str(store.reader.folder.resolve())
    values = {"version": __version__, "shards": shards, **_asked(config, store), **decided}
    write_json(run_folder / CONFIG_NAME, values)


def _asked(config: TrainConfig, store: VideoStore) -> dict[str, Any]:
    return {
        "train": config.to_dict(),
        "dataset": store.index.dataset_name,
        "digest": store.index.digest,
    }


def finished_report(run_folder: Path, seconds: float) -> TrainReport:
    """Report on a run whose checkpoint is there."""
    info = load_checkpoint(run_folder).info
    config = info.train
    return TrainReport(
        run_folder=run_folder,
        checkpoint=run_folder / CHECKPOINT_NAME,
        num_steps=num_steps(config["episodes"], config["episodes_per_step"]),
        selected="val" if info.selected == "val" else "last",
        step=info.step,
        val_accuracy=info.val_accuracy,
        train_classes=tuple(info.train_classes),
        notes=("the run was finished already",),
        resumed_at=None,
        seconds=seconds,
    )
