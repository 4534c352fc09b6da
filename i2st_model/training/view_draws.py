"""Which stored view of its video each clip of a pool shows.

Shape letters: B clips of a pool.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from i2st_model.drawing.draws import Stream, Words
from i2st_model.features import FeatureStore
from i2st_model.training.config import TrainConfig
from pipeline.views import View


class ViewDraw(NamedTuple):
    """What `ViewDraws.draw` returns."""

    views: NDArray[np.int64] | None
    """(B,) 0 is the base view, k the k-th stored one; None where all clips show the base view."""
    mirrored: NDArray[np.bool_]
    """(B,) clips whose tokens are still to be mirrored."""


class ViewDraws:
    """Draws views uniformly among those that are not mirrored, as a function of (seed, number).

    Mirroring is drawn apart, for every clip. A base view that is to be mirrored is replaced by the
    stored flip where there is one: pixels that were encoded mirrored are better than tokens that
    are moved, which keep the encoder's own sense of left and right. Paper: our choice.

    Args:
        config: the run's settings.
        store: the features; videos outside its train split have the base view alone.
    """

    def __init__(self, config: TrainConfig, store: FeatureStore) -> None:
        stored = store.views if config.views == "all" else ()
        self._seed = config.seed
        self._upright = [0, *_numbers(stored, mirrored=False)]
        flips = _numbers(stored, mirrored=True)
        self._flip = flips[0] if flips else None
        self._has_views = np.asarray(store.reader.split) == "train"
        self.any = bool(stored)
        """Whether clips may show anything but the base view."""

    def draw(self, number: int, rows: NDArray[np.int64], mirrored: NDArray[np.bool_]) -> ViewDraw:
        """Draw the views of one pool.

        Args:
            number: of the pool.
            rows: (B,) rows of the clips.
            mirrored: (B,) clips that are to be mirrored.

        Returns:
            The views, and the clips that these do not mirror.
        """
        if not self.any:
            return ViewDraw(None, mirrored)
        words = Words(Stream.VIEW, self._seed, number)
        drawn = np.array([self._upright[words.below(len(self._upright))] for _ in rows], np.int64)
        views = np.where(self._has_views[rows], drawn, 0)
        if self._flip is None:
            return ViewDraw(views, mirrored)
        replaced = mirrored & (views == 0) & self._has_views[rows]
        return ViewDraw(np.where(replaced, self._flip, views), mirrored & ~replaced)


def _numbers(views: tuple[View, ...], *, mirrored: bool) -> list[int]:
    return [number for number, view in enumerate(views, 1) if view.mirrored == mirrored]
