"""I2ST as a method: a trained network over cached tokens.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, M global tokens,
L grid cells, C token channels, D features.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.methods.linear_probe import LinearProbe
from i2st_model.network import I2STNetwork
from pipeline.errors import ConfigError

Head = Literal["matching", "probe"]
PROBED = "i2st:head=probe"


class I2st(FewShotMethod):
    """Wraps a network that was loaded or built; both are put into test mode.

    Qian et al., "Joint image-instance spatial-temporal attention for few-shot action recognition",
    CVIU 2025, arXiv:2503.14430; see `I2STNetwork` for what of it is stated.

    Args:
        network: trained, or as it begins.
        head: ``matching`` scores as the network was trained to. ``probe`` fits `LinearProbe` to
            each episode's mean local descriptors instead, once `centre_on` was called; no weight
            changes. Paper: our choice.
        regularisation: of the probe; 0.1 unless given.

    Raises:
        ConfigError: a regularisation without a probe, or one that is not above 0.
    """

    name = "i2st"
    needs = "tokens"
    trainable = True
    reading_options = ("head", "regularisation")

    def __init__(
        self,
        *,
        network: I2STNetwork,
        head: Head = "matching",
        regularisation: float | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.probe = _probe(head, regularisation)
        self.needs_embedding = network.stem.reads_embedding
        self.classes_apart = network.relation is None and self.probe is None
        self.shots_apart = network.config.prototypes == "after_matching" and self.probe is None
        self.averages_shots = self.classes_apart and not self.shots_apart
        self.eval()

    def centre_on(self, mean: Tensor) -> None:
        """Centre the probe on the mean local descriptor (D,) of training frames."""
        assert self.probe is not None
        self.probe.fit(TrainStatistics(embedding_dim=len(mean), mean_embedding=mean))

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, L, C) tokens to ``local`` (B, T, D), ``global`` (B, M, D) and the like.

        Args:
            clips: tokens, and frame embeddings where the network reads them.

        Returns:
            The network's descriptors, or the probe's ``clip`` (B, D).
        """
        described = self.network(clips.features, clips.embedding, with_masks=False).descriptors
        if self.probe is None:
            return described
        return self.probe.prepare(Clips(features=described["local"]))

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score what was prepared, (E, N, K, ...) and (E, Q, ...): (E, Q, N) float."""
        if self.probe is None:
            return self.network.logits(query, support)
        return self.probe.score(support, query)


def _probe(head: Head, regularisation: float | None) -> LinearProbe | None:
    if head == "probe":
        probe = LinearProbe()
        if regularisation is not None:
            probe = LinearProbe(regularisation=regularisation)
        probe.spec = PROBED  # in its warning
        return probe
    if regularisation is not None:
        raise ConfigError(
            f"regularisation={regularisation:g} with head={head!r}, which reads none; head='probe' "
            f"was needed; write {PROBED}:regularisation={regularisation:g}"
        )
    return None
