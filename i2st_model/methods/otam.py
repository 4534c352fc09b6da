"""Ordered temporal alignment of frame embeddings.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, D embedding channels.
"""

from collections.abc import Mapping

from torch import Tensor

from i2st_model.matching import otam
from i2st_model.methods.centred import CentredMethod
from i2st_model.methods.clips import Clips


class Otam(CentredMethod):
    """OTAM's alignment without its trained backbone.

    Cao et al., "Few-shot video classification via temporal alignment", CVPR 2020, arXiv:1906.11415,
    on centred frame embeddings, both directions; shots are averaged frame by frame before
    matching. ``temperature`` is the soft minimum's lambda, 0.5 as in CLIP-FSAR's code (the older
    function there has 0.1). Nothing is trained.
    """

    name = "otam"
    classes_apart = True

    def __init__(self, *, centre: bool = True, temperature: float = 0.5) -> None:
        super().__init__(centre=centre)
        self.temperature = temperature

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, D) frame embeddings to ``frames`` (B, T, D), centred."""
        return {"frames": self.centred(clips.features)}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score ``frames``, (E, N, K, T, D) and (E, Q, T, D): (E, Q, N) float."""
        prototypes = support["frames"].mean(dim=2)
        return -otam(query["frames"], prototypes, temperature=self.temperature)
