"""Masks painted over a picture: one colour per slot, a clear outline and a fill to see through.

Shape letters: H and W of the picture, S slots.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFilter

SLOT_COLOURS = ((255, 51, 153), (0, 204, 255), (255, 190, 0), (124, 230, 0))
"""Actor, then objects: told apart by colour-blind eyes too; the actor's is no colour of skin."""
FILL_OPACITY = 0.35
_OVERSAMPLING = 3
_OUTLINE, _HALO = 9, 7
"""Filter sizes in pixels of the oversampled mask: lines of 4 / 3 and of 1 pixel."""
_HALO_COLOUR, _HALO_OPACITY = (0, 0, 0), 0.55
"""A dark line around the outline, so that it shows on any ground."""


def paint_masks(
    picture: Image.Image, masks: NDArray[np.bool_], found: NDArray[np.bool_]
) -> Image.Image:
    """Paint the found masks of a frame over it; later slots lie above earlier ones.

    Args:
        picture: the whole frame at any size, RGB.
        masks: (S, 128, 128) bool. Over the full frame.
        found: (S,) bool. Slots that are not found are not painted.

    Returns:
        A new picture of the same size.
    """
    painted = picture.copy()
    for mask, is_found, colour in zip(masks, found, SLOT_COLOURS, strict=False):
        if is_found:
            halo, inside = _opacities(mask, picture.size)
            painted.paste(_HALO_COLOUR, mask=halo)
            painted.paste(colour, mask=inside)
    return painted


def _opacities(mask: NDArray[np.bool_], size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Opacity at each pixel of a mask's dark halo, and of its outline and fill."""
    fine = (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING)
    cells = Image.fromarray(mask.astype(np.uint8) * 255)
    inside = cells.resize(fine, Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 127))
    # What lies beyond the picture counts as inside, so that no outline runs along its border.
    core = inside.filter(ImageFilter.MinFilter(_OUTLINE))
    halo = ImageChops.subtract(inside.filter(ImageFilter.MaxFilter(_HALO)), inside)
    fill = core.point(lambda value: round(value * FILL_OPACITY))
    painted = ImageChops.lighter(ImageChops.subtract(inside, core), fill)
    halo = halo.point(lambda value: round(value * _HALO_OPACITY))
    box = Image.Resampling.BOX
    return halo.resize(size, box), painted.resize(size, box)
