"""A method ready to evaluate: a trained network from its run, or a baseline with train means."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from i2st_model.checkpoints import Checkpoint, load_checkpoint
from i2st_model.compatibility import require_compatible
from i2st_model.config import network_config
from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.open_store import load_end_to_end
from i2st_model.evaluating.method_runs import NETWORK_METHOD
from i2st_model.features import FeatureStore
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import TrainStatistics
from i2st_model.methods.i2st import I2st
from i2st_model.methods.options import split_spec
from i2st_model.network import build_network
from i2st_model.train_descriptors import centring_classes, mean_descriptor
from pipeline.devices import resolve_device
from pipeline.errors import ConfigError


def load_method(
    name: str,
    store: FeatureStore,
    *,
    shards: Path,
    run: Path | None = None,
    mean_classes: Sequence[str] | None = None,
    device: str = "auto",
) -> tuple[FewShotMethod, Checkpoint | None]:
    """Build a method.

    Args:
        name: see `i2st_model.methods`; options may stand behind it, of a trained method those
            that say how its weights are read.
        store: features to evaluate on.
        shards: their folder, for messages.
        run: folder of the training run, for methods that are trained.
        mean_classes: classes whose mean centres a method; the train split's unless given, or those
            that a run on this dataset was trained on.
        device: auto, cpu or cuda.

    Returns:
        The method, and the checkpoint it comes from.

    Raises:
        BackendError: no method has that name.
        ConfigError: a trained method without a run, a run of another method or on other features,
            or no train video to centre on.
        CheckpointError: the checkpoint is damaged.
    """
    place = torch.device(resolve_device(device))
    method = None if split_spec(name)[0] == NETWORK_METHOD else get_method(name)
    if method is None or method.trainable or _trained_with_encoder(name, store, run):
        trained, checkpoint = _of_run(name, store, shards, run, place)
        if isinstance(trained, I2st) and trained.probe is not None:
            classes = mean_classes or centring_classes(trained, store, checkpoint)
            rows = _rows_to_centre_on(trained, store, shards, classes)
            trained.centre_on(mean_descriptor(trained.network, store, rows, device=place))
        return trained.to(place), checkpoint
    classes = centring_classes(method, store, None) if mean_classes is None else mean_classes
    method.fit(statistics_for(method, store, _rows_to_centre_on(method, store, shards, classes)))
    return method.to(place).eval(), None


def _of_run(
    name: str, store: FeatureStore, shards: Path, run: Path | None, device: torch.device
) -> tuple[FewShotMethod, Checkpoint]:
    if run is None:
        raise ConfigError(f"method {name} has no run; trained weights were needed; pass --run")
    return load_trained(name, store, shards=shards, run=run, device=device)


def _rows_to_centre_on(
    method: FewShotMethod, store: FeatureStore, shards: Path, classes: Sequence[str]
) -> NDArray[np.int64]:
    rows = store.rows_of(list(classes))
    if not len(rows) and (method.needs_train_mean or method.trainable):
        raise ConfigError(
            f"{shards} holds no train video; {method.name} is centred on their mean; extract the "
            "train split too"
        )
    return rows


def _trained_with_encoder(name: str, store: FeatureStore, run: Path | None) -> bool:
    """Whether a method, be it without weights, is what a run trained its encoder under."""
    if run is None or not isinstance(store.reader, EncodedFrames):
        return False
    return load_checkpoint(run).info.method == name


def statistics_for(
    method: FewShotMethod, store: FeatureStore, rows: NDArray[np.int64]
) -> TrainStatistics:
    """What a method's ``fit`` takes, and no more than the method says that it needs.

    Args:
        method: decides by ``needs_train_mean`` and ``uses_class_names``.
        store: features of the dataset.
        rows: (B,) rows of the train videos.

    Returns:
        The mean only where it is needed, the names, of the test split too, only where the method
        is marked as knowing them.
    """
    statistics = train_statistics(store, rows if method.needs_train_mean else rows[:0])
    return statistics if method.uses_class_names else replace(statistics, class_names=())


def train_statistics(store: FeatureStore, rows: NDArray[np.int64]) -> TrainStatistics:
    """All that training videos can tell a method; see `statistics_for`.

    Args:
        store: features of the dataset.
        rows: (B,) rows of the train videos.

    Returns:
        Sizes, names and means; on the CPU.
    """
    return TrainStatistics(
        embedding_dim=store.index.embedding_dim,
        mean_embedding=store.mean_embedding(rows) if len(rows) else None,
        class_names=tuple(store.reader.class_names),
        encoder=store.index.fingerprint.get("encoder") or {},
    )


def load_trained(
    name: str, store: FeatureStore, *, shards: Path, run: Path, device: torch.device
) -> tuple[FewShotMethod, Checkpoint]:
    """Load what a run trained and check that the shards' features are those it was trained on.

    Args:
        name: of the method that was trained, and how to read it.
        store: features to evaluate on.
        shards: their folder, for messages.
        run: folder of the training run.
        device: where the network goes.

    Returns:
        The method, and the checkpoint it comes from.

    Raises:
        ConfigError: another method was trained, on other features, or the run is not finished.
        CheckpointError: the checkpoint is damaged.
    """
    checkpoint = load_checkpoint(run)
    info = checkpoint.info
    if info.method != split_spec(name)[0]:
        raise ConfigError(
            f"{run} is a run of {info.method}; one of {name} was needed; pass another --run"
        )
    require_compatible(info.fingerprint, store.index.fingerprint, shards=shards, run=run)
    frames = info.train.get("frames")
    if store.num_frames != (frames or store.num_stored):
        raise ConfigError(
            f"{run} was trained on clips of {frames or store.num_stored} frames, these have "
            f"{store.num_frames}; the same was needed; pass the same frames"
        )
    if info.method != NETWORK_METHOD:
        return _trained_method(name, store, checkpoint).to(device).eval(), checkpoint
    network = build_network(network_config(info.network))
    _load_weights(store, network, checkpoint)
    return get_method(name, network=network.to(device)), checkpoint


def _trained_method(name: str, store: FeatureStore, checkpoint: Checkpoint) -> FewShotMethod:
    method = get_method(name, **checkpoint.info.options)
    # The weights bring the mean of the videos that were trained on; zeros hold its place.
    means = torch.zeros(store.index.embedding_dim) if method.needs_train_mean else None
    no_rows = np.empty(0, dtype=np.int64)
    method.fit(replace(statistics_for(method, store, no_rows), mean_embedding=means))
    _load_weights(store, method, checkpoint)
    return method


def _load_weights(store: FeatureStore, module: nn.Module, checkpoint: Checkpoint) -> None:
    if isinstance(store.reader, EncodedFrames):
        load_end_to_end(store.reader, module, checkpoint)
    else:
        checkpoint.load_into(module)
