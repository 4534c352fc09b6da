"""What a run is built from: device, seeds, train classes, network."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from i2st_model.config import NetworkConfig, preset
from i2st_model.drawing.draws import WORD, Stream, Words
from i2st_model.features import FeatureStore
from i2st_model.network import I2STNetwork, build_network
from i2st_model.training.config import TrainConfig
from i2st_model.training.pools import PoolSampler

INITIAL = WORD - 1
"""Number of the torch seed that initial weights are drawn from; no step reaches it."""
NO_ROWS = np.empty(0, dtype=np.int64)


def network_config_for(
    config: TrainConfig, store: FeatureStore, num_train_classes: int
) -> NetworkConfig:
    """Network config of a run: the preset, what the shards decide, and the run's own settings.

    Args:
        config: the run's settings.
        store: gives the size of tokens and grid.
        num_train_classes: outputs of the base-class head, if there is one.

    Returns:
        The checked config.

    Raises:
        ConfigError: preset or setting is unknown.
    """
    sizes: dict[str, Any] = {
        "token_dim": store.index.token_dim,
        "grid": store.grid,
        "embedding_dim": store.index.embedding_dim,
        "base_classes": num_train_classes if config.alpha > 0 else 0,
    }
    return preset(config.preset, **{**sizes, **config.network})


def build_untrained(config: TrainConfig, store: FeatureStore) -> I2STNetwork:
    """Build the network of a run as it is before its first step, stem fitted: the control "step 0".

    Args:
        config: the run's settings.
        store: features of the train classes.

    Returns:
        The network in test mode, on the CPU.

    Raises:
        ConfigError: settings contradict each other or the shards.
    """
    videos = pool_sampler(config, store).videos
    with own_torch():
        torch.manual_seed(torch_seed(config.seed, INITIAL))
        network = build_network(network_config_for(config, store, len(videos)))
    rows = store.rows_of([store.reader.class_names[v.number] for v in videos])
    fit_stem(config, store, network, rows)
    return network.eval()


def fit_stem(
    config: TrainConfig, store: FeatureStore, network: I2STNetwork, rows: NDArray[np.int64]
) -> None:
    """Fit a network's stem to features of train videos.

    Args:
        config: the run's settings.
        store: the features.
        network: its stem is changed in place.
        rows: (B,) rows of the train videos.
    """
    samples = store.stem_samples(
        rows,
        seed=config.seed,
        max_tokens=config.stem_tokens,
        with_embedding=network.stem.reads_embedding,
    )
    network.fit_stem(*samples)


def pool_sampler(config: TrainConfig, store: FeatureStore) -> PoolSampler:
    """Sampler of a run's pools; it knows which train classes have enough videos.

    Args:
        config: the run's settings.
        store: gives classes and groups.

    Returns:
        The sampler.

    Raises:
        ConfigError: too few classes.
    """
    names = config.classes if config.classes is not None else store.classes_of("train")
    what = "split 'train'" if config.classes is None else "the given classes"
    return PoolSampler(
        store.videos_of(names),
        way=config.way,
        shot=config.shot,
        queries=config.queries,
        seed=config.seed,
        num_classes=config.pool_classes,
        episodes_per_step=config.episodes_per_step,
        where=f"{what} of {store.index.dataset_name}",
    )


def torch_seed(seed: int, number: int) -> int:
    """Seed of torch's generators for one step, or for the initial weights (`INITIAL`)."""
    return Words(Stream.TORCH, seed, number).word() >> 1


@contextmanager
def own_torch() -> Iterator[None]:
    """Leave the caller's random state and thread count as they were."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        try:
            yield
        finally:
            torch.set_num_threads(threads)
