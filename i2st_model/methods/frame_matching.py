"""What methods that align two sequences of frames share: centring, and when shots are averaged.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, D embedding channels.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from i2st_model.methods.base import mean_of_shots
from i2st_model.methods.centred import CentredMethod
from i2st_model.methods.clips import Clips

Shots = Literal["before_matching", "after_matching"]


class FrameMatching(CentredMethod):
    """Scores by a distance between sequences of centred frame embeddings.

    Args:
        centre: subtract the mean training frame.
        shots: ``before_matching`` averages the shots' frames, position by position;
            ``after_matching`` averages the distances to each shot.
    """

    classes_apart = True

    def __init__(self, *, centre: bool = True, shots: Shots = "before_matching") -> None:
        super().__init__(centre=centre)
        self.shots_apart = shots == "after_matching"
        self.averages_shots = not self.shots_apart

    @abstractmethod
    def distance(self, query: Tensor, clips: Tensor) -> Tensor:
        """Compare (E, Q, T, D) query clips with (E, N, T, D) clips: (E, Q, N) float."""

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map (B, T, D) frame embeddings to ``frames`` (B, T, D), centred."""
        return {"frames": self.centred(clips.features)}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score ``frames``, (E, N, K, T, D) and (E, Q, T, D): (E, Q, N) float."""
        if not self.shots_apart:
            return -self.distance(query["frames"], mean_of_shots(support["frames"]))
        each = self.distance(query["frames"], support["frames"].flatten(1, 2))
        return -each.unflatten(2, support["frames"].shape[1:3]).mean(dim=3)
