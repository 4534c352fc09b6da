"""The runs of a sweep: in which folder each is kept, and whether that holds it already.

A run's folder is named by its settings and the shards' digest. Sweeps that share a setting share
its runs, and a sweep that was cut short or is asked for again trains what is absent.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from i2st_model.checkpoints import load_checkpoint
from i2st_model.config import NetworkConfig
from i2st_model.config_checks import required_type
from i2st_model.runs import CHECKPOINT_NAME, read_config
from i2st_model.settings_scope import network_defaults
from i2st_model.sweeping.variants import Variant
from i2st_model.training.config import TrainConfig, train_config
from i2st_model.training.initial import initial_info, initial_sha256
from pipeline.errors import ConfigError
from pipeline.shards.fingerprint import differences


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """One training of a sweep."""

    variant: str
    config: TrainConfig
    digest: str
    """Of the shards."""
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its checkpoint is there."""
        return (self.folder / CHECKPOINT_NAME).is_file()


def plan_runs(
    variants: Sequence[Variant], *, seeds: int, root: Path, dataset: str, digest: str
) -> list[list[PlannedRun]]:
    """Name every run of a sweep.

    Args:
        variants: rows of the table.
        seeds: trainings of each; the first has the config's own seed, the next one more.
        root: folder of all runs.
        dataset: name of the shards' dataset.
        digest: of the shards.

    Returns:
        For each variant its runs, in the order of their seeds.

    Raises:
        ConfigError: the run that a variant starts from is absent, or is of another method.
        CheckpointError: it is damaged.
    """
    planned = []
    for variant in variants:
        initial_info(variant.config)  # else weights that are absent would be as good as none
        first = variant.config.seed
        configs = [replace(variant.config, seed=first + number) for number in range(seeds)]
        planned.append(
            [
                PlannedRun(
                    variant=variant.name,
                    config=config,
                    digest=digest,
                    folder=run_folder_of(root, config, dataset=dataset, digest=digest),
                )
                for config in configs
            ]
        )
    return planned


def run_folder_of(root: Path, config: TrainConfig, *, dataset: str, digest: str) -> Path:
    """Folder that keeps the run of some settings on some shards.

    Args:
        root: of all runs.
        config: every setting of the run.
        dataset: name of the shards' dataset.
        digest: of the shards.

    Returns:
        ``root/sweep-<dataset>/<hash>-seed<seed>``; it need not exist.
    """
    told = json.dumps(
        _decided(replace(config, seed=0), digest, initial_sha256(config)), sort_keys=True
    )
    name = f"{hashlib.sha256(told.encode()).hexdigest()[:10]}-seed{config.seed}"
    return root / f"sweep-{dataset}" / name


def require_planned(run: PlannedRun) -> None:
    """Refuse a folder that holds another run than its name stands for.

    Args:
        run: a finished one.

    Raises:
        ConfigError: it was copied there, or its settings were changed since.
        CheckpointError: it is damaged.
    """
    info = load_checkpoint(run.folder).info
    started_from = read_config(run.folder).get("init_sha256")
    there = _decided(train_config(info.train), info.digest, started_from)
    here = _decided(run.config, run.digest, initial_sha256(run.config))
    differing = differences(there, here)
    if differing:
        raise ConfigError(
            f"{run.folder} holds another run than its name says: {differing[0]}; the run of these "
            "settings and shards was needed; move the folder away, and it is trained anew"
        )


def _decided(config: TrainConfig, digest: str, init_sha256: str | None) -> dict[str, Any]:
    """All that decides the weights of a run, in one spelling."""
    # With the network's defaults: where a later version has others, its runs are others, too.
    network = {**network_defaults(config.preset), **config.network}
    return {
        **_numbers_alike(TrainConfig, config.to_dict()),
        "network": _numbers_alike(NetworkConfig, network),
        "digest": digest,
        # Not the folder's name: another run may lie there by now.
        "init_from": init_sha256,
    }


def _numbers_alike(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write 1 as 1.0 where a field is a float, as the two are one setting."""
    floats = {one.name for one in fields(config) if required_type(one.type) is float}
    return {
        name: float(value) if name in floats and type(value) is int else value
        for name, value in values.items()
    }
