"""Bidirectional mean Hausdorff matching of frame embeddings.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, D embedding channels.
"""

from collections.abc import Mapping

from torch import Tensor

from i2st_model.matching import bi_mhm
from i2st_model.methods.centred import CentredMethod
from i2st_model.methods.clips import Clips


class BiMhm(CentredMethod):
    """HyRSM's set matching without its trained relation module.

    Wang et al., "Hybrid relation guided set matching for few-shot action recognition", CVPR 2022,
    arXiv:2204.13423: only its matching, on centred frame embeddings; shots are averaged
    frame by frame before matching (as MoLo does, HyRSM averages distances). Nothing is trained.
    """

    name = "bi_mhm"
    classes_apart = True

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, D) frame embeddings to ``frames`` (B, T, D), centred."""
        return {"frames": self.centred(clips.features)}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score ``frames``, (E, N, K, T, D) and (E, Q, T, D): (E, Q, N) float in [-4, 0]."""
        return -bi_mhm(query["frames"], support["frames"].mean(dim=2))
