"""What a method is centred on: which classes, and what a network makes of them on average.

Shape letters: B videos, D features.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.checkpoints import Checkpoint, CheckpointInfo
from i2st_model.features import FeatureStore
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.i2st import I2st
from i2st_model.network import I2STNetwork

AT_A_TIME = 32
"""Videos described at a time."""


def centring_classes(
    method: FewShotMethod, store: FeatureStore, checkpoint: Checkpoint | None
) -> list[str]:
    """Classes of a dataset on whose mean a method is centred when it is loaded.

    Args:
        method: to be evaluated.
        store: features of the dataset.
        checkpoint: where its weights come from, with the mean that they were trained on; None for
            methods without training.

    Returns:
        The train split's; for the probe of a network that was trained on this dataset, those that
        it was trained on; empty where nothing is subtracted or the weights bring the mean.
    """
    if isinstance(method, I2st) and method.probe is not None and checkpoint is not None:
        return _classes_seen(checkpoint.info, store)
    return store.classes_of("train") if method.needs_train_mean and checkpoint is None else []


def _classes_seen(info: CheckpointInfo, store: FeatureStore) -> list[str]:
    """Those of the run where it was trained on this dataset, else those of the train split."""
    trained = info.train_classes if info.dataset == store.index.dataset_name else []
    here = set(store.reader.class_names)
    return [name for name in trained if name in here] or store.classes_of("train")


def mean_descriptor(
    network: I2STNetwork, store: FeatureStore, rows: NDArray[np.int64], *, device: torch.device
) -> Tensor:
    """Mean of the local descriptors of all frames of some videos, seen as at test time.

    Args:
        network: trained, on ``device``.
        store: features of the videos.
        rows: (B,) of the videos, one at least.
        device: where the network is.

    Returns:
        (D,) float32 on the CPU; summed in float64, so that no order of videos matters.
    """
    reads_embedding = network.stem.reads_embedding
    total = torch.zeros(network.config.dim, dtype=torch.float64)
    for first in range(0, len(rows), AT_A_TIME):
        some = rows[first : first + AT_A_TIME]
        tokens, embedding = store.test_clips(some, "tokens", with_embedding=reads_embedding)
        beside = None if embedding is None else embedding.to(device)
        local = network.describe(tokens.to(device), beside)["local"]
        total += local.double().sum(dim=(0, 1)).cpu()
    return (total / (len(rows) * store.num_frames)).float()
