"""Refuses, before anything is trained, variants that no training could begin with."""

from collections.abc import Sequence

import torch

from i2st_model.features import FeatureStore
from i2st_model.sweeping.variants import Variant
from i2st_model.training.learners import build_learner
from i2st_model.training.setup import own_torch, pool_sampler
from pipeline.errors import ConfigError


def require_trainable(variants: Sequence[Variant], store: FeatureStore) -> None:
    """Build what each variant trains, on the CPU, as its training would before `Learner.begin`.

    The network is not fitted to train videos then; other methods are fitted where they are built,
    so those that centre features read the train videos here, too.
    Variants that train an encoder are left out: each would load weights of its own, and what they
    refuse is refused by their training.

    Args:
        variants: that are to be trained.
        store: features of the train classes.

    Raises:
        ConfigError: names the variant whose settings contradict each other or the shards.
    """
    for variant in variants:
        config = variant.config
        if config.encoder:
            continue
        try:
            classes = pool_sampler(config, store).videos
            with own_torch():
                build_learner(config, store, classes=classes, device=torch.device("cpu"))
        except ConfigError as error:
            # A sweep has no flag of that name.
            said = str(error).replace("--masks off", "--set masks=off")
            raise ConfigError(f"{variant.name}: {said}") from None
