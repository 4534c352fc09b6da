"""I2ST as a method: a trained network over cached tokens.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, M global tokens,
L grid cells, C token channels, D features.
"""

from collections.abc import Mapping

from torch import Tensor

from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips
from i2st_model.network import I2STNetwork


class I2st(FewShotMethod):
    """Wraps a network that was loaded or built; both are put into test mode.

    Qian et al., "Joint image-instance spatial-temporal attention for few-shot action recognition",
    CVIU 2025, arXiv:2503.14430; see `I2STNetwork` for what of it is stated.
    """

    name = "i2st"
    needs = "tokens"
    trainable = True

    def __init__(self, *, network: I2STNetwork) -> None:
        super().__init__()
        self.network = network
        self.needs_embedding = network.stem.reads_embedding
        self.classes_apart = network.relation is None
        self.shots_apart = network.config.prototypes == "after_matching"
        self.averages_shots = self.classes_apart and not self.shots_apart
        self.eval()

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, L, C) tokens to ``local`` (B, T, D), ``global`` (B, M, D) and the like."""
        return self.network(clips.features, clips.embedding, with_masks=False).descriptors

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score descriptors (E, N, K, ...) and (E, Q, ...): (E, Q, N) float."""
        return self.network.logits(query, support)
