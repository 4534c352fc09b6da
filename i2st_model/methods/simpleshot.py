"""SimpleShot: nearest class mean of centred, normalised clip embeddings.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, D embedding channels.
"""

from collections.abc import Mapping

from torch import Tensor

from i2st_model.matching import prototype_distance, unit
from i2st_model.methods.base import mean_of_shots
from i2st_model.methods.centred import CentredMethod
from i2st_model.methods.clips import Clips


class SimpleShot(CentredMethod):
    """Nearest class mean of CL2N embeddings.

    Wang et al., "SimpleShot: revisiting nearest-neighbor classification for few-shot learning",
    2019, arXiv:1911.04623: a clip is the mean of its frame embeddings, minus the training mean,
    divided by its length. A prototype is the mean over shots, not normalised again; a score is
    minus the squared Euclidean distance. Nothing is trained.
    """

    name = "simpleshot"
    classes_apart = True
    averages_shots = True

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, D) frame embeddings to ``clip`` (B, D) of length one."""
        return {"clip": unit(self.centred(clips.features).mean(dim=1))}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score ``clip``, (E, N, K, D) and (E, Q, D): (E, Q, N) float in [-4, 0]."""
        return -prototype_distance(query["clip"], mean_of_shots(support["clip"]))
