"""Sweeps: which settings are trained, and in which folder each run is kept.

A run's folder is named by its settings and the shards' digest. Sweeps that share a setting share
its runs, and a sweep that was cut short or is asked for again trains what is absent.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from i2st_model.config import PRESETS, NetworkConfig
from i2st_model.config_checks import required_type
from i2st_model.evaluating.method_runs import NETWORK_METHOD
from i2st_model.settings import change_config
from i2st_model.training.config import TrainConfig
from pipeline.errors import ConfigError

BASE = "as given"
"""Row of the settings that the others are varied from."""

OF_NETWORK = ("preset", "alpha", "beta", "dice", "masks", "slow_rate")
"""Settings of training that I2ST alone reads, beside those of its network."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """Settings that are compared, each a list of name=value words; see method.md 3.4."""

    about: str
    variants: tuple[tuple[str, ...], ...]
    """The empty one is the settings as given; the first is what the others are compared to."""
    ways: tuple[int, ...] = ()
    """Ways to evaluate at, where these are what is varied."""


def _each(name: str, values: Sequence[object], *also: str) -> tuple[tuple[str, ...], ...]:
    return tuple((*also, f"{name}={value}") for value in values)


ABLATIONS = {
    "frames": Ablation(
        about="frames of a clip", variants=_each("frames", (2, 4, 6, 8, 10, 12, 16))
    ),
    "instances": Ablation(
        about="instance perception: with masks, without their loss, with others' masks, without",
        variants=((), ("beta=0",), ("masks=shuffled",), ("instances=none",)),
    ),
    "attention": Ablation(
        about="spatial and temporal attention",
        variants=(
            (),
            *_each("attention_parts", ("spatial", "temporal")),
            *_each("spatial_temporal_pairs", (0, 2)),
        ),
    ),
    "matching": Ablation(
        about="local and global matching",
        variants=(
            (),
            *_each("global_weight", (0, 1)),
            *_each("global_matching", ("otam", "compound")),
        ),
    ),
    "num_instances": Ablation(
        about="instance queries per frame",
        variants=_each("num_instances", (1, 2, 4, 8), "instances=queries"),
    ),
    "weights": Ablation(
        about="weights of the mask loss and of global matching",
        variants=(
            (),
            *_each("beta", (0.05, 0.1, 0.2, 0.5)),
            *_each("global_weight", (0, 0.1, 0.5, 0.7, 1)),
        ),
    ),
    "ways": Ablation(about="classes per episode", variants=((),), ways=(5, 6, 7, 8, 9, 10)),
}
"""Those of method.md 3.4. Other prompts are other shards: sweep each and compare the runs."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One row of a sweep's table."""

    name: str
    config: TrainConfig


def variants_over(axes: Mapping[str, Sequence[str]], *, grid: bool) -> tuple[tuple[str, ...], ...]:
    """Combine axes into variants.

    Args:
        axes: setting -> its values.
        grid: all combinations; else one setting at a time, after the settings as given where there
            are several axes.

    Returns:
        Words name=value of each variant.
    """
    words = [[f"{name}={value}" for value in values] for name, values in axes.items()]
    if grid or len(words) == 1:
        return tuple(product(*words))
    return ((), *((word,) for axis in words for word in axis))


def plan_variants(
    config: TrainConfig, variants: Sequence[Sequence[str]], *, num_stored: int
) -> list[Variant]:
    """Resolve variants, leaving out those that equal an earlier one or need more frames.

    Args:
        config: what they are varied from.
        variants: words name=value of each.
        num_stored: frames that the shards store.

    Returns:
        At least one, in order.

    Raises:
        ConfigError: a word is no setting or one that the method does not read, or none of the
            variants is left.
    """
    planned: list[Variant] = []
    for words in variants:
        given = change_config(config, {}, list(words))
        _require_read(given, words)
        changed = _plain(given, num_stored)
        known = any(one.config == changed for one in planned)
        if not known and (changed.frames or 0) <= num_stored:
            planned.append(Variant(name=" ".join(words) or BASE, config=changed))
    if not planned:
        raise ConfigError(
            f"every variant has more frames than the {num_stored} that are stored; fewer were "
            "needed; extract with more --frames"
        )
    return planned


def _require_read(config: TrainConfig, words: Sequence[str]) -> None:
    """Refuse settings of I2ST's network for methods that have none: all rows would be one."""
    if config.method == NETWORK_METHOD:
        return
    own = {*OF_NETWORK, *(one.name for one in fields(NetworkConfig))}
    for word in words:
        name = word.partition("=")[0]
        if name.removeprefix("network.") in own:
            raise ConfigError(
                f"{name} is a setting of {NETWORK_METHOD}, which {config.method} does not read; "
                "one that it reads was needed; sweep options.NAME or fast_rate, or pass "
                f"--method {NETWORK_METHOD}"
            )


def _plain(config: TrainConfig, num_stored: int) -> TrainConfig:
    """Leave out what says no more than a default, so that equal settings are equal configs."""
    given = {one.name: one.default for one in fields(NetworkConfig)} | PRESETS.get(
        config.preset, {}
    )
    network = {name: value for name, value in config.network.items() if given.get(name) != value}
    frames = None if config.frames == num_stored else config.frames
    return replace(config, network=network, frames=frames)


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
    # With the network's defaults: where a later version has others, its runs are others, too.
    defaults = {
        one.name: one.default for one in fields(NetworkConfig) if one.default is not MISSING
    }
    network = {**defaults, **PRESETS.get(config.preset, {}), **config.network}
    values = {
        **_numbers_alike(TrainConfig, replace(config, seed=0).to_dict()),
        "network": _numbers_alike(NetworkConfig, network),
        "digest": digest,
    }
    told = json.dumps(values, sort_keys=True).encode()
    name = f"{hashlib.sha256(told).hexdigest()[:10]}-seed{config.seed}"
    return root / f"sweep-{dataset}" / name


def _numbers_alike(config: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write 1 as 1.0 where a field is a float, as the two are one setting."""
    floats = {one.name for one in fields(config) if required_type(one.type) is float}
    return {
        name: float(value) if name in floats and type(value) is int else value
        for name, value in values.items()
    }
