"""Which learner a run has: the one place that knows them all."""

from collections.abc import Sequence

import torch

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.method_learner import MethodOnFrames
from i2st_model.end_to_end.network_learner import NetworkOnFrames
from i2st_model.features import FeatureStore
from i2st_model.load_method import TRAINED
from i2st_model.training.config import TrainConfig
from i2st_model.training.learner import Learner
from i2st_model.training.method_learner import MethodLearner
from i2st_model.training.store import VideoStore
from i2st_model.training.token_learner import TokenLearner
from pipeline.errors import ConfigError


def build_learner(
    config: TrainConfig,
    store: VideoStore,
    *,
    classes: Sequence[ClassVideos],
    device: torch.device,
) -> Learner:
    """Build what the config asks for; initial weights come from torch's generators.

    Args:
        config: the run's settings.
        store: what the shards hold.
        classes: the train classes.
        device: where everything is computed.

    Returns:
        The learner, before `Learner.begin` or `Learner.load_weights`.

    Raises:
        ConfigError: settings contradict each other or the shards.
    """
    assert isinstance(store, FeatureStore)
    is_network = config.method == TRAINED
    if is_network and config.options:
        raise ConfigError(
            f"options.{next(iter(config.options))} is set, method {TRAINED} has no options; a "
            "setting of its network was needed; pass network.NAME=VALUE, or another --method"
        )
    learner: type[Learner]
    if isinstance(store.reader, EncodedFrames):
        learner = NetworkOnFrames if is_network else MethodOnFrames
    else:
        learner = TokenLearner if is_network else MethodLearner
    return learner(config, store, classes=classes, device=device)
