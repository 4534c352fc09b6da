"""The numbers of the ``sam_clip`` recipe, in one place."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class SamClipSettings:
    """Every number that decides the masks. All our choice but where a source is named."""

    logit_scale: float = 40.0
    """On cosines of cells and words; ProxyCLIP's and Trident's."""
    min_presence_cells: float = 0.2
    """Least mean probability of a noun in the best 5 % of a clip's cells."""
    min_presence_frame: float = 0.5
    """Least probability of a noun by the class token, as a multiple of chance."""
    min_probability: float = 0.2
    """Cells below belong to no component; Trident's."""
    peak_share: float = 0.5
    """Nor do cells below this share of their map's peak."""
    components: int = 3
    """Prompted per noun and frame."""
    min_area: float = 5e-4
    """Least share of the frame that a mask may cover."""
    max_area: float = 0.9
    """Largest."""
    fallback_score: float = 0.1
    """Factor on the mean probability, the score of a map that stands in for rejected masks."""
    prompts_per_launch: int = 64
    """Bounds the decoder's memory; it decides no mask beyond rounding."""
