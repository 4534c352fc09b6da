"""Stored views of train videos as a contact sheet shows them.

Shape letters: F frames, H and W the video's size.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.segmenters import MASK_SIDE
from pipeline.shards.index import ShardIndex
from pipeline.showing.clips import ShownClip
from pipeline.views import BASE, View, mask_window, views_named

DARKENED = 3
"""What a view does not see keeps one part in so many of its light."""


def find_view(index: ShardIndex, name: str | None) -> tuple[int, View]:
    """Find a stored view by its name.

    Args:
        index: of the shards.
        name: as `i2st info` lists it; None for the base view.

    Returns:
        Its number for a ShardReader, and the view.

    Raises:
        ConfigError: the shards hold no such view.
    """
    names = index.view_names
    if name is None:
        return 0, BASE
    if name not in names:
        raise ConfigError(
            f"the shards of {index.dataset_name} hold no stored view {name!a:.40}; known: "
            f"{', '.join(names) or 'none'}; correct --view, or leave it out"
        )
    number = names.index(name)
    return number + 1, views_named(names, geometry_of(index))[number]


def geometry_of(index: ShardIndex) -> str:
    """Name the geometry in which the shards' videos were seen."""
    return str(index.fingerprint["view"]["geometry"])


def as_seen(clip: ShownClip, view: View, geometry: str) -> ShownClip:
    """Turn a clip's frames as a view does, and darken what lies outside the view.

    Args:
        clip: whole frames in the view's phase; its masks lie as the view shows them already.
        view: which.
        geometry: of the shards.

    Returns:
        The clip, its frames of the same size.
    """
    turned = clip.frames[:, :, ::-1] if view.mirrored else clip.frames
    window = mask_window(geometry, view)
    rows, columns = (_pixels(window, length) for length in turned.shape[1:3])
    frames: NDArray[np.uint8] = turned // DARKENED
    frames[:, rows, columns] = turned[:, rows, columns]
    return replace(clip, frames=frames)


def _pixels(window: slice, length: int) -> slice:
    first, end = (round(cell * length / MASK_SIDE) for cell in (window.start, window.stop))
    return slice(first, end)
