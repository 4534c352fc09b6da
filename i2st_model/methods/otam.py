"""Ordered temporal alignment of frame embeddings.

Shape letters: E episodes, Q query clips, N way, T frames, D embedding channels.
"""

from torch import Tensor

from i2st_model.matching import otam
from i2st_model.methods.frame_matching import FrameMatching, Shots
from pipeline.errors import ConfigError

LEAST_TEMPERATURE, LARGEST_TEMPERATURE = 1e-3, 1e3
"""As of the network's ``otam_temperature``."""


class Otam(FrameMatching):
    """OTAM's alignment without its trained backbone.

    Cao et al., "Few-shot video classification via temporal alignment", CVPR 2020, arXiv:1906.11415,
    on centred frame embeddings, both directions. Shots are averaged frame by frame before matching
    (as CLIP-FSAR's code does) unless ``shots`` says otherwise. ``temperature`` is the soft
    minimum's lambda, 0.5 as in CLIP-FSAR's code (the older function there has 0.1). Nothing is
    trained.
    """

    name = "otam"

    def __init__(
        self,
        *,
        centre: bool = True,
        shots: Shots = "before_matching",
        temperature: float = 0.5,
    ) -> None:
        super().__init__(centre=centre, shots=shots)
        if not LEAST_TEMPERATURE <= temperature <= LARGEST_TEMPERATURE:
            raise ConfigError(
                f"temperature={temperature:g} is out of range; {LEAST_TEMPERATURE:g} to "
                f"{LARGEST_TEMPERATURE:g} is needed; pass such a value"
            )
        self.temperature = temperature

    def distance(self, query: Tensor, clips: Tensor) -> Tensor:
        """Compare (E, Q, T, D) query clips with (E, N, T, D) clips: (E, Q, N) float, at most 4."""
        return otam(query, clips, temperature=self.temperature)
