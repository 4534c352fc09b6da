"""Any trainable method on cached features, as something that `train` trains.

Shape letters: B clips of a pool, T frames, E embedding channels, L grid cells, C token channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.drawing.draws import Stream, Words
from i2st_model.features import FeatureStore
from i2st_model.load_method import statistics_for
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips
from i2st_model.stem_features import StoredFeatures
from i2st_model.training.config import TrainConfig
from i2st_model.training.data import flips_for
from i2st_model.training.learner import Learner, Losses, RatedParameters, episode_terms
from i2st_model.training.pools import Pool
from i2st_model.training.precision import compiled, encoding, widened
from i2st_model.training.schedules import random_positions
from i2st_model.training.view_draws import ViewDraws
from pipeline.errors import ConfigError

GIB = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodBatch:
    """One pool's clips and the episodes among them."""

    pool: Pool
    clips: Clips


class MethodLearner(Learner):
    """A method's weights, at one rate, by episode cross-entropy alone.

    Args:
        config: the run's settings; ``method`` and ``options`` say what is trained.
        store: features of the dataset.
        classes: the train classes.
        device: where everything is computed.

    Raises:
        BackendError: no method has that name.
        ConfigError: the method has no weights, or not these options.
    """

    network: FewShotMethod

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        *,
        classes: Sequence[ClassVideos],
        device: torch.device,
    ) -> None:
        self.config, self.store, self.device = config, store, device
        names = store.reader.class_names
        self._rows = store.rows_of([names[videos.number] for videos in classes])
        method = get_method(config.method, **config.options)
        method.fit(statistics_for(method, store, self._rows))
        if not any(parameter.requires_grad for parameter in method.parameters()):
            raise ConfigError(
                f"method {config.method} has no weights; one that trains was needed; evaluate it "
                f"as it is: `i2st evaluate --method {config.method}`"
            )
        self.network = method.to(device)
        self._prepare = compiled(config, self.network.prepare)
        self._flips = flips_for(config, store.index.dataset_name)
        self._views = ViewDraws(config, store)

    def rated_parameters(self) -> list[RatedParameters]:
        """All weights at the fast rate."""
        trained = [one for one in self.network.parameters() if one.requires_grad]
        return [RatedParameters(parameters=trained, rate=self.config.fast_rate)]

    def begin(self) -> None:
        """Do nothing: the method was fitted where it was built."""

    def open(self, val_rows: NDArray[np.int64]) -> None:
        """Keep the features of train and val videos, as far as memory allows."""
        self._features = self._stored(self._rows, with_views=self._views.any)
        self._val_features = self._stored(val_rows)

    def batch(self, pool: Pool, number: int) -> MethodBatch:
        """Gather a pool's clips: random frames, and stored views where there are any.

        A stored flip stands for a mirrored base view. Embeddings cannot be mirrored themselves.
        """
        rows = pool.rows.ravel()
        words = Words(Stream.AUGMENT, self.config.seed, number)
        positions = random_positions(words, len(rows), self.store.num_stored, self.store.num_frames)
        mirrored = np.array([self._flips and words.below(2) == 1 for _ in rows])
        views, _ = self._views.draw(number, rows, mirrored)
        return MethodBatch(
            pool=pool, clips=self._clips(rows, self._features.clips(rows, positions, views))
        )

    def losses(self, batch: MethodBatch) -> Losses:
        """Cross-entropy of the pool's episodes."""
        with encoding(self.config, self.device):
            prepared = self._prepare(batch.clips)
        prepared = {name: widened(value) for name, value in prepared.items()}
        episode, accuracy = episode_terms(self, prepared, batch.pool)
        return Losses(total=episode, parts={"episode": episode}, accuracy=accuracy)

    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Prepare videos seen as at test time."""
        return self.network.prepare(self._clips(rows, self._val_features.clips(rows)))

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score what `prepare` made: (E, Q, N) logits."""
        return self.network.score(support, query)

    def description(self) -> dict[str, Any]:
        """Nothing: method and options are in the train config."""
        return {}

    def _clips(self, rows: NDArray[np.int64], features: Tensor) -> Clips:
        here = torch.from_numpy(rows)
        classes = torch.from_numpy(np.asarray(self.store.reader.class_index)[rows])
        return Clips(
            features=features,
            classes=classes.to(self.device) if self.network.uses_class_names else None,
            videos=here.to(self.device),
        )

    def _stored(self, rows: NDArray[np.int64], *, with_views: bool = False) -> StoredFeatures:
        return StoredFeatures(
            self.store,
            self.network.needs,
            rows,
            with_views=with_views,
            budget_bytes=int(self.config.cache_gib * GIB),
            device=self.device,
        )
