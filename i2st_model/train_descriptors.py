"""What a trained network makes of its training videos, on average.

Shape letters: B videos, D features.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.checkpoints import CheckpointInfo
from i2st_model.features import FeatureStore
from i2st_model.network import I2STNetwork

AT_A_TIME = 32
"""Videos described at a time."""


def classes_seen(info: CheckpointInfo, store: FeatureStore) -> list[str]:
    """Classes of a dataset whose videos say what a network makes of what it was trained on.

    Args:
        info: of the network's checkpoint.
        store: features of the dataset.

    Returns:
        Those of the run where it was trained on this dataset, else those of the train split.
    """
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
