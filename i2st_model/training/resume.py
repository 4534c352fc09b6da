"""Whether a run folder may be started, gone on with, or is finished."""

from pathlib import Path
from typing import Any

import torch

from data_manifests import __version__
from i2st_model.checkpoints import load_checkpoint
from i2st_model.features import FeatureStore
from i2st_model.runs import CHECKPOINT_NAME, CONFIG_NAME, read_config
from i2st_model.settings_scope import network_settings
from i2st_model.training.config import TrainConfig, train_config
from i2st_model.training.initial import initial_sha256
from i2st_model.training.reports import TrainReport
from i2st_model.training.schedules import num_steps
from i2st_model.whole_files import write_json
from pipeline.devices import resolve_device
from pipeline.errors import ConfigError
from pipeline.shards.fingerprint import differences

NEW, UNFINISHED, FINISHED = "new", "unfinished", "finished"


def run_status(
    config: TrainConfig,
    store: FeatureStore,
    run_folder: Path,
    *,
    resume: bool,
    allow_nondeterministic: bool,
) -> str:
    """Say what the folder holds of this very run.

    Args:
        config: what is asked.
        store: what the shards hold.
        run_folder: the run's folder.
        resume: whether going on with a run is allowed.
        allow_nondeterministic: go on even where the last bits will differ from those of a run
            that was not cut short.

    Returns:
        `NEW` where it holds no run, else `UNFINISHED` or `FINISHED`.

    Raises:
        ConfigError: it holds a run and ``resume`` is False, or another run, or one that was begun
            with other threads, on another kind of device or by another torch.
        CheckpointError: its config.json is damaged.
    """
    if not (run_folder / CONFIG_NAME).is_file():
        return NEW
    if not resume:
        raise ConfigError(
            f"{run_folder} holds a run already; an empty folder was needed; pass --resume to go on "
            "with it, or another --run"
        )
    recorded, asked = read_config(run_folder), _asked(config, store)
    # Runs before these were recorded are taken to have had the encoder and defaults that are here.
    train = _with_defaults(recorded.get("train"))
    known = {"encoder": asked["encoder"], "network": _network_of(train), **recorded, "train": train}
    for values in (known, asked):
        values["train"] = _deciding(values["train"])
    differing = differences({key: known.get(key) for key in asked}, asked)
    if differing:
        raise ConfigError(
            f"{run_folder} is another run: {', '.join(differing)}; the same settings and shards "
            "were needed to resume; pass them, or another --run"
        )
    if (run_folder / CHECKPOINT_NAME).is_file():
        return FINISHED
    changed = changed_bits(config, run_folder)
    if changed and not allow_nondeterministic:
        raise ConfigError(
            f"{run_folder} was begun otherwise: {', '.join(changed)}; the same were needed to end "
            f"in the same bits; {_hint(recorded)}, or pass --allow-nondeterministic"
        )
    return UNFINISHED


def changed_bits(config: TrainConfig, run_folder: Path) -> list[str]:
    """What beside config and shards decides the last bits, and differs from a run's record.

    Sums on other threads, on a GPU, or by another torch are made in another order.

    Args:
        config: what is asked.
        run_folder: of the run.

    Returns:
        One phrase for each difference.
    """
    recorded = read_config(run_folder)
    now = _decides_bits(config)
    return differences({key: recorded.get(key, value) for key, value in now.items()}, now)


def _hint(recorded: dict[str, Any]) -> str:
    words = f"pass --threads {recorded.get('threads')} --device {recorded.get('device')}"
    if recorded.get("torch", torch.__version__) == torch.__version__:
        return words
    return f"install torch {recorded['torch']} and {words}"


def _with_defaults(recorded: Any) -> Any:
    """A recorded config with the fields that were added since; as it is where it is unreadable."""
    try:
        return train_config(recorded).to_dict()
    except (ConfigError, TypeError):
        return recorded


def _network_of(train: Any) -> dict[str, Any]:
    try:
        return network_settings(train_config(train))
    except (ConfigError, TypeError):
        return {}


def _deciding(train: Any) -> Any:
    """A config without what is compared in another form: network and kind of device."""
    if not isinstance(train, dict):
        return train
    elsewhere = ("device", "preset", "network")
    return {name: value for name, value in train.items() if name not in elsewhere}


def record_run(config: TrainConfig, store: FeatureStore, run_folder: Path) -> None:
    """Write config.json: where the shards are, what is asked, and what else decides the bits."""
    shards = str(store.reader.folder.resolve())
    asked, decided = _asked(config, store), _decides_bits(config)
    values = {"version": __version__, "shards": shards, **asked, **decided}
    write_json(run_folder / CONFIG_NAME, values)


def decides_run(config: TrainConfig, store: FeatureStore) -> dict[str, Any]:
    """All that decides the bits of a run and has to be the same in each of its processes.

    Args:
        config: what a process was asked.
        store: what it found in the shards.

    Returns:
        JSON values by name.

    Raises:
        ConfigError: the weights to start from are absent.
    """
    asked = _asked(config, store)
    asked["train"] = _deciding(asked["train"])
    return {"version": __version__, **asked, **_decides_bits(config)}


def _decides_bits(config: TrainConfig) -> dict[str, Any]:
    kind = resolve_device(config.device).partition(":")[0]
    return {"threads": torch.get_num_threads(), "device": kind, "torch": str(torch.__version__)}


def _asked(config: TrainConfig, store: FeatureStore) -> dict[str, Any]:
    return {
        "train": config.to_dict(),
        "network": network_settings(config),
        "dataset": store.index.dataset_name,
        "digest": store.index.digest,
        "encoder": store.index.fingerprint.get("encoder"),
        "init_sha256": initial_sha256(config),
    }


def finished_report(config: TrainConfig, run_folder: Path, seconds: float) -> TrainReport:
    """Report on a run of a config, whose checkpoint is there."""
    info = load_checkpoint(run_folder).info
    return TrainReport(
        run_folder=run_folder,
        checkpoint=run_folder / CHECKPOINT_NAME,
        num_steps=num_steps(config.episodes, config.episodes_per_step),
        selected="val" if info.selected == "val" else "last",
        step=info.step,
        val_accuracy=info.val_accuracy,
        train_classes=tuple(info.train_classes),
        notes=("the run was finished already",),
        resumed_at=None,
        seconds=seconds,
    )
