"""Other ways to read a trained I2ST: with a linear probe in place of its matching, or beside it.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, D features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from i2st_model.features import FeatureStore
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.bi_mhm import BiMhm
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.methods.i2st import I2st
from i2st_model.methods.linear_probe import LinearProbe

LOGIT_SCALE = 8.0
"""I2ST's, for matching that has none of its own."""
PARTS = 32
"""Videos prepared at a time for the mean."""


class Probe(FewShotMethod):
    """Linear probe on the mean over time of I2ST's local descriptors, centred on train videos."""

    name = "probe"
    needs = "tokens"

    def __init__(self, trained: I2st) -> None:
        super().__init__()
        self.trained, self.probe = trained, LinearProbe()
        self.needs_embedding = trained.needs_embedding

    @torch.no_grad()
    def centre_on(self, store: FeatureStore, rows: Tensor) -> None:
        """Take the mean over train videos (B,) of what is probed."""
        parts = [self._probed_rows(store, some) for some in rows.split(PARTS)]
        mean = torch.cat(parts).flatten(0, 1).mean(dim=0)
        self.probe.fit(TrainStatistics(embedding_dim=len(mean), mean_embedding=mean))

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Describe clips: I2ST's tensors, and the probe's (B, D)."""
        found = self.trained.prepare(clips)
        return {**found, **self.probe.prepare(Clips(features=self.probed(clips, found)))}

    def probed(self, clips: Clips, described: Mapping[str, Tensor]) -> Tensor:
        """What the probe sees: (B, T, D)."""
        return described["local"]

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score by the probe alone: (E, Q, N)."""
        return self.probe.score(support, query)

    def _probed_rows(self, store: FeatureStore, rows: Tensor) -> Tensor:
        some = rows.numpy()
        embedding = store.frame_embedding(some).float() if self.needs_embedding else None
        clips = Clips(features=store.tokens(some).float(), embedding=embedding, videos=rows)
        return self.probed(clips, self.trained.prepare(clips))


class Both(Probe):
    """Mean of the log-probabilities of I2ST's own matching and of that probe."""

    name = "both"

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score by both: (E, Q, N)."""
        own = self.trained.score(support, query).double().log_softmax(dim=2)
        return own + self.probe.score(support, query).double().log_softmax(dim=2)


class Beside(Both):
    """The same with a probe on the encoder's frame embeddings, which I2ST never sees."""

    name = "beside"

    def __init__(self, trained: I2st) -> None:
        super().__init__(trained)
        self.needs_embedding = True

    def probed(self, clips: Clips, described: Mapping[str, Tensor]) -> Tensor:
        """What the probe sees: (B, T, E)."""
        assert clips.embedding is not None
        return clips.embedding


class FrozenBoth(FewShotMethod):
    """Bi-MHM and linear probe on frozen embeddings: the control of `Beside`, nothing trained."""

    name = "frozen_both"
    needs_train_mean = True

    def __init__(self) -> None:
        super().__init__()
        self.matching, self.probe = BiMhm(), LinearProbe()

    def fit(self, train: TrainStatistics) -> None:
        """Centre both on the mean training frame."""
        self.matching.fit(train)
        self.probe.fit(train)

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Describe clips by the tensors of both."""
        return {**self.matching.prepare(clips), **self.probe.prepare(clips)}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score by both: (E, Q, N)."""
        own = LOGIT_SCALE * self.matching.score(support, query).double()
        probed = self.probe.score(support, query).double()
        return own.log_softmax(dim=2) + probed.log_softmax(dim=2)


HEADS = {method.name: method for method in (Probe, Both, Beside)}
