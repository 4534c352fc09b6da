"""Other ways to read a trained I2ST: its matching beside a linear probe.

The probe in place of its matching is a head of I2ST itself (`i2st:head=probe`).

Shape letters: B clips, E episodes, Q query clips, N way, K shot.
"""

from collections.abc import Mapping

from torch import Tensor

from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.bi_mhm import BiMhm
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.methods.i2st import PROBED
from i2st_model.methods.linear_probe import LinearProbe

LOGIT_SCALE = 8.0
"""I2ST's, for matching that has none of its own."""
BESIDE = {"probe": None, "both": PROBED, "beside": LinearProbe.name}
"""What stands beside I2ST's matching; under ``probe`` the probe stands alone."""


class Beside(FewShotMethod):
    """Mean of the log-probabilities of I2ST's own matching and of a probe.

    Args:
        trained: I2ST.
        probe: on I2ST's descriptors, or on the encoder's frame embeddings.
    """

    name = "beside"
    needs = "tokens"
    needs_embedding = True

    def __init__(self, trained: FewShotMethod, probe: FewShotMethod) -> None:
        super().__init__()
        self.trained, self.probe = trained, probe

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Describe clips by the tensors of both."""
        seen = clips
        if self.probe.needs == "frame_embedding":
            assert clips.embedding is not None
            seen = Clips(features=clips.embedding)
        return {**self.trained.prepare(clips), **self.probe.prepare(seen)}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score by both: (E, Q, N)."""
        own = self.trained.score(support, query).double().log_softmax(dim=2)
        return own + self.probe.score(support, query).double().log_softmax(dim=2)


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
