"""Bidirectional mean Hausdorff matching of frame embeddings.

Shape letters: E episodes, Q query clips, N way, T frames, D embedding channels.
"""

from torch import Tensor

from i2st_model.matching import bi_mhm
from i2st_model.methods.frame_matching import FrameMatching


class BiMhm(FrameMatching):
    """HyRSM's set matching without its trained relation module.

    Wang et al., "Hybrid relation guided set matching for few-shot action recognition", CVPR 2022,
    arXiv:2204.13423: only its matching, on centred frame embeddings. Shots are averaged frame by
    frame before matching (as MoLo does) unless ``shots`` says otherwise (HyRSM's 1-shot head
    averages distances). Nothing is trained.
    """

    name = "bi_mhm"

    def distance(self, query: Tensor, clips: Tensor) -> Tensor:
        """Compare (E, Q, T, D) query clips with (E, N, T, D) clips: (E, Q, N) float in [0, 4]."""
        return bi_mhm(query, clips)
