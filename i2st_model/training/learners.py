"""Which learner a run has: the one place that knows them all."""

from collections.abc import Sequence

import torch

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.end_to_end.encoded_frames import EncodedFrames
from i2st_model.end_to_end.encoder_config import encoder_config
from i2st_model.end_to_end.frame_learner import FrameLearner
from i2st_model.evaluating.method_runs import NETWORK_METHOD
from i2st_model.features import FeatureStore
from i2st_model.training.cached_learner import CachedLearner
from i2st_model.training.config import TrainConfig
from i2st_model.training.head import Ground
from i2st_model.training.learner import Learner
from i2st_model.training.method_head import MethodHead
from i2st_model.training.network_head import NetworkHead
from pipeline.errors import ConfigError


def build_learner(
    config: TrainConfig,
    store: FeatureStore,
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
        ValueError: the store was opened with another encoder than the config has.
    """
    _require_encoder(config, store)
    is_network = config.method == NETWORK_METHOD
    if is_network and config.options:
        raise ConfigError(
            f"options.{next(iter(config.options))} is set, method {NETWORK_METHOD} has no options; "
            "a setting of its network was needed; pass network.NAME=VALUE, or another --method"
        )
    learner = FrameLearner if isinstance(store.reader, EncodedFrames) else CachedLearner
    head = NetworkHead if is_network else MethodHead
    return learner(Ground(config=config, store=store, classes=classes, device=device), head)


def _require_encoder(config: TrainConfig, store: FeatureStore) -> None:
    """The store's encoder is what trains; the config's is what the run says of it."""
    reader = store.reader
    opened = reader.encoder.config if isinstance(reader, EncodedFrames) else None
    asked = encoder_config(config.encoder) if config.encoder else None
    if opened != asked:
        raise ValueError(f"the store was opened with encoder {opened}, the config has {asked}")
