"""What the network makes of clips.

Shape letters: B clips, T frames, M global tokens, F focused tokens, D features, S side of the mask.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """What the network makes of B clips."""

    local: Tensor
    """(B, T, D) float. Frame descriptors."""
    global_: Tensor
    """(B, M, D) float. Clip descriptors."""
    mask_logits: Tensor | None
    """(B, T, S, S) float. Union of the instance masks; None where none was made."""
    base_logits: Tensor | None
    """(B, 1, base classes) float, or (B, T, ...) of frames. None without a base-class head."""
    focused: Tensor | None = None
    """(B, F, D) float. Descriptors of parts of the clip; None without focused tokens."""

    @property
    def descriptors(self) -> dict[str, Tensor]:
        """What the network's ``logits`` needs of a clip; first axis B."""
        described = {"local": self.local, "global": self.global_}
        return described if self.focused is None else {**described, "focused": self.focused}
