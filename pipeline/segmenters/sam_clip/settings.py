"""The choices and numbers of the ``sam_clip`` recipe, in one place."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.errors import ConfigError
from pipeline.segmenters.options import check_names, settings_from

PROPOSALS = ("prompts", "grid")


@dataclass(frozen=True, kw_only=True, slots=True)
class SamClipModels:
    """How the two models see a frame."""

    mode: str = "clearclip"
    """Of CLIP's dense features, one of dense_attention.MODES."""
    clip_short_side: int = 448
    """Pixels of the frame's shorter side at CLIP's input."""
    sam_side: int = 1024
    """Pixels of the frame's longer side at SAM's input: 1024, 768 or 512."""
    compile: int = 0
    """1 to compile SAM's image encoder. It is quicker, and may differ in the last bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamClipSettings:
    """Every number that decides the masks. All our choice but where a source is named."""

    proposals: str = "prompts"
    """Where masks come from: ``prompts`` of CLIP's maps, or a ``grid`` of points over the frame."""
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
    """Prompted per noun and frame; with a grid, masks united per noun and frame."""
    min_area: float = 5e-4
    """Least share of the frame that a mask may cover."""
    max_area: float = 0.9
    """Largest."""
    fallback_score: float = 0.1
    """Factor on the mean probability, the score of a map that stands in for rejected masks."""

    def __post_init__(self) -> None:
        if self.proposals not in PROPOSALS:
            raise ConfigError(
                f"proposals {self.proposals!r}; needed: one of {', '.join(PROPOSALS)}; pass "
                f"--segmenter-option proposals={PROPOSALS[0]}"
            )


def settings_of(options: Mapping[str, Any]) -> tuple[SamClipModels, SamClipSettings]:
    """Divide options, as a command line gives them, between the models and the recipe.

    Args:
        options: name -> value, or the value's text.

    Returns:
        Both settings.

    Raises:
        ConfigError: there is no such option, or it has no such value.
    """
    of_models, of_recipe = (
        {field.name for field in fields(kind)} for kind in (SamClipModels, SamClipSettings)
    )
    check_names(options, of_models | of_recipe, segmenter="sam_clip")
    models, recipe = (
        {name: value for name, value in options.items() if name in known}
        for known in (of_models, of_recipe)
    )
    return (
        settings_from(SamClipModels, models, segmenter="sam_clip"),
        settings_from(SamClipSettings, recipe, segmenter="sam_clip"),
    )
