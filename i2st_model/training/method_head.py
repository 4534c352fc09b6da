"""Any method as something that learns, by episode cross-entropy alone: the field's own protocol.

Shape letters: B clips, T frames, E embedding channels, L grid cells, C token channels.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.load_method import statistics_for
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips
from i2st_model.stem_features import StoredFeatures
from i2st_model.training.data import Batch
from i2st_model.training.head import Ground, Head
from i2st_model.training.pool_losses import Losses, RatedParameters, episode_terms
from i2st_model.training.precision import compiled, encoding, widened


class MethodHead(Head):
    """A method, all of its weights at the fast rate; what it sees is `Clips`.

    It is fitted where it is built: on an encoder that trains, the mean that centring subtracts is
    that of the initial encoder, and fixed, as I2ST's stem is.

    Args:
        ground: what the run trains on; ``method`` and ``options`` of its config say what trains.

    Raises:
        BackendError: no method has that name.
        ConfigError: the method has not these options.
    """

    module: FewShotMethod

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground)
        method = get_method(self.config.method, **self.config.options)
        method.fit(statistics_for(method, self.store, ground.rows))
        self.module = method.to(self.device)
        self._prepare = compiled(self.config, self.module.prepare)

    def rated_parameters(self) -> list[RatedParameters]:
        """All weights at the fast rate."""
        own = [one for one in self.module.parameters() if one.requires_grad]
        return [RatedParameters(parameters=own, rate=self.config.fast_rate)] if own else []

    def begin(self) -> None:
        """Do nothing: the method was fitted where it was built."""

    def fixed(self) -> StoredFeatures:
        """What the method needs, as the shards hold it."""
        return StoredFeatures(self.store, self.module.needs)

    def of_fixed(self, rows: NDArray[np.int64], features: Tensor) -> Clips:
        """Say of features which videos, and to zero-shot methods which classes, they are of."""
        here = torch.from_numpy(rows)
        classes = torch.from_numpy(np.asarray(self.store.reader.class_index)[rows])
        return Clips(
            features=features,
            classes=classes.to(self.device) if self.module.uses_class_names else None,
            videos=here.to(self.device),
        )

    def of_encoder(self, rows: NDArray[np.int64], tokens: Tensor, embedding: Tensor) -> Clips:
        """Take what the method needs, as `of_fixed`."""
        clips = self.of_fixed(rows, tokens if self.module.needs == "tokens" else embedding)
        return replace(clips, embedding=embedding if self.module.needs_embedding else None)

    def losses(self, seen: Clips, batch: Batch) -> Losses:
        """Cross-entropy of the pool's episodes."""
        with encoding(self.config, self.device):
            prepared = self._prepare(seen)
        prepared = {name: widened(value) for name, value in prepared.items()}
        episode, accuracy = episode_terms(self.score, prepared, batch.pool)
        return Losses(total=episode, parts={"episode": episode}, accuracy=accuracy)

    def prepare(self, seen: Clips) -> dict[str, Tensor]:
        """Prepare clips seen as at test time."""
        return self.module.prepare(seen)

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score what `prepare` made: (E, Q, N) logits."""
        return self.module.score(support, query)
