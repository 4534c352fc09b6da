"""The control: scores that know nothing of the clips.

Shape letters: B clips, E episodes, Q query clips, N way, K shot.
"""

from collections.abc import Mapping

from torch import Tensor

from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips

# splitmix64: Steele et al. 2014, doi:10.1145/2660193.2660195.
_STEP = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1))


class Chance(FewShotMethod):
    """Scores each pair of a query and a support video by a number drawn from ``seed``.

    The same pair always has the same score, on every machine, so its accuracy differs from 100 / N
    by the luck of the split's videos and no more. Shots are averaged. Our choice.
    """

    name = "random"
    classes_apart = True
    shots_apart = True

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Map clips to ``video`` (B,), their rows.

        Args:
            clips: B clips with ``videos``.

        Returns:
            ``video``, int64.

        Raises:
            ValueError: the clips do not say which videos they are.
        """
        if clips.videos is None:
            raise ValueError("clips.videos is None; random scores need rows; pass videos")
        return {"video": clips.videos}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score ``video``, (E, N, K) and (E, Q): (E, Q, N) float32 in [0, 1)."""
        of_query = _mix(_mix(query["video"] + _signed(self.seed * _STEP)))
        pairs_EQNK = _mix(of_query[:, :, None, None] + support["video"][:, None])
        # The upper 24 bits, which float32 holds exactly.
        return ((pairs_EQNK >> 40) & 0xFFFFFF).float().mean(dim=3) / 2**24


def _mix(words: Tensor) -> Tensor:
    """Scramble (...) int64 words; int64 products wrap, and shifts are made logical by a mask."""
    words = words + _signed(_STEP)
    for bits, factor in _MIX:
        words = words ^ ((words >> bits) & ((1 << (64 - bits)) - 1))
        words = words * _signed(factor)
    return words


def _signed(word: int) -> int:
    """The int64 with the lowest 64 bits of ``word``; torch takes no other."""
    return (word + 2**63) % 2**64 - 2**63
