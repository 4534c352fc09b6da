"""A control that looks at nothing: one fixed ellipse in the middle of every frame."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.masks import pack_masks
from pipeline.segmenters import MASK_SIDE, ClipToSegment, Masks, no_masks
from pipeline.segmenters.options import check_no_model

SEMI_AXIS_X = 0.20
SEMI_AXIS_Y = 0.35
"""Semi-axes as shares of the frame's width and height, so 0.22 of the area. Our choice: an upright
person in the middle; not fitted to any data set."""


class CenterPrior:
    """The same upright ellipse as the actor of every frame, whatever the frame or the prompt is.

    What a text-guided segmenter adds must show against this.
    """

    name = "center_prior"

    def fingerprint(self) -> dict[str, Any]:
        """Return the ellipse's axes."""
        return {"name": self.name, "semi_axis_x": SEMI_AXIS_X, "semi_axis_y": SEMI_AXIS_Y}

    def segment(self, clips: Sequence[ClipToSegment]) -> list[Masks]:
        """Give slot 0 the ellipse in every frame; no object is ever found."""
        return [self._masks(len(clip.frame_indices)) for clip in clips]

    def _masks(self, num_frames: int) -> Masks:
        masks = no_masks(num_frames)
        masks.bits[:, 0] = pack_masks(ellipse())
        masks.found[:, 0] = True
        masks.score[:, 0] = 1
        return masks


def ellipse() -> NDArray[np.bool_]:
    """Return the (128, 128) mask: cells whose centre lies in the ellipse."""
    centres = (np.arange(MASK_SIDE) + 0.5) / MASK_SIDE - 0.5
    x, y = centres[None, :] / SEMI_AXIS_X, centres[:, None] / SEMI_AXIS_Y
    return x**2 + y**2 <= 1


def build(model: str, *, device: str, masks: Path | None) -> CenterPrior:
    """Registry entry; uses no device or masks, and refuses a model."""
    check_no_model(model, segmenter=CenterPrior.name)
    return CenterPrior()
