"""Prototypical networks on mean-pooled frame embeddings.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, D embedding channels.
"""

from collections.abc import Mapping

from torch import Tensor

from i2st_model.matching import prototype_distance
from i2st_model.methods.base import FewShotMethod, mean_of_shots
from i2st_model.methods.clips import Clips


class ProtoNet(FewShotMethod):
    """Nearest class mean of clip embeddings.

    Snell et al., "Prototypical networks for few-shot learning", NeurIPS 2017, arXiv:1703.05175: a
    clip is the mean of its frame embeddings, a prototype the mean over shots (Eq. 1), a score minus
    the squared Euclidean distance (Eq. 2). The encoder is frozen, so nothing is trained. Centring
    would change no score; `SimpleShot` also normalises.
    """

    name = "protonet"
    classes_apart = True
    averages_shots = True

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, D) frame embeddings to ``clip`` (B, D), at least float32."""
        features = clips.features
        wide = features if features.dtype.itemsize > 2 else features.float()
        return {"clip": wide.mean(dim=1)}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score ``clip``, (E, N, K, D) and (E, Q, D): (E, Q, N) float, not above 0."""
        return -prototype_distance(query["clip"], mean_of_shots(support["clip"]))
