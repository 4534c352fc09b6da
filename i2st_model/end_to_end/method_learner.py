"""Any method on an encoder that trains with it: the field's own protocol for OTAM, TRX, HyRSM.

Shape letters: B clips of a pool, T frames, E embedding channels, L grid cells, C token channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.class_videos import ClassVideos
from i2st_model.end_to_end.frame_data import FrameBatch
from i2st_model.end_to_end.frame_learner import EndToEnd, FrameLearner
from i2st_model.features import FeatureStore
from i2st_model.load_method import statistics_for
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips
from i2st_model.training.config import TrainConfig
from i2st_model.training.learner import Losses, RatedParameters, episode_terms
from i2st_model.training.precision import compiled, encoding, widened


class MethodOnFrames(FrameLearner):
    """A method, with weights or without, and the encoder under it; episode cross-entropy alone.

    The mean that centring subtracts is that of the initial encoder, and fixed, as I2ST's stem is.

    Args:
        config: the run's settings; ``method`` and ``options`` say what stands on the encoder.
        store: frames of the dataset; see `FrameLearner`.
        classes: the train classes.
        device: where everything is computed.

    Raises:
        BackendError: no method has that name.
        ConfigError: the method has not these options.
    """

    def __init__(
        self,
        config: TrainConfig,
        store: FeatureStore,
        *,
        classes: Sequence[ClassVideos],
        device: torch.device,
    ) -> None:
        super().__init__(config, store, classes=classes, device=device)
        self.head: FewShotMethod = get_method(config.method, **config.options)
        statistics = statistics_for(self.head, store, np.empty(0, dtype=np.int64))
        if self.head.needs_train_mean:
            statistics = replace(statistics, mean_embedding=self._mean_embedding())
        self.head.fit(statistics)
        self.head.to(device)
        self.network = EndToEnd(self.encoder, self.head)
        self._prepare = compiled(config, self.head.prepare)

    def rated_parameters(self) -> list[RatedParameters]:
        """The method's weights at the fast rate, and the encoder."""
        own = [one for one in self.head.parameters() if one.requires_grad]
        rated = [RatedParameters(parameters=own, rate=self.config.fast_rate)] if own else []
        return [*rated, self.encoder_rate()]

    def begin(self) -> None:
        """Do nothing: the method was fitted where it was built."""

    def losses(self, batch: FrameBatch) -> Losses:
        """Cross-entropy of the pool's episodes."""
        with encoding(self.config, self.device):
            clips = self._clips(batch.pool.rows.ravel(), *self.network.features(batch.views))
            prepared = self._prepare(clips)
        prepared = {name: widened(value) for name, value in prepared.items()}
        episode, accuracy = episode_terms(self, prepared, batch.pool)
        return Losses(total=episode, parts={"episode": episode}, accuracy=accuracy)

    def prepare(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Prepare videos seen as at test time."""
        return self.head.prepare(self._clips(rows, *self.seen(rows)))

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score what `prepare` made: (E, Q, N) logits."""
        return self.head.score(support, query)

    def description(self) -> dict[str, Any]:
        """Nothing: method, options and encoder are in the train config."""
        return {}

    def _mean_embedding(self) -> Tensor:
        sample = self.store.embedding_sample(
            self.train_rows(), seed=self.config.seed, max_frames=self.config.stem_tokens
        )
        return sample.double().mean(dim=0).float()

    def _clips(self, rows: NDArray[np.int64], tokens: Tensor, embedding: Tensor) -> Clips:
        classes = torch.from_numpy(np.asarray(self.store.reader.class_index)[rows])
        return Clips(
            features=tokens if self.head.needs == "tokens" else embedding,
            embedding=embedding if self.head.needs_embedding else None,
            classes=classes.to(self.device) if self.head.uses_class_names else None,
            videos=torch.from_numpy(rows).to(self.device),
        )
