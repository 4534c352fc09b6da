"""Clips of cached features: random frames, in random stored views, mirrored at random.

Shape letters: B clips of the pool, T frames of a clip, L = g x g grid cells, S features of a frame,
P channels.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2st_model.drawing.draws import Stream, Words
from i2st_model.features import FeatureStore
from i2st_model.stem_features import ClipFeatures
from i2st_model.training.config import TrainConfig
from i2st_model.training.data import DrawnClips, flips_for
from i2st_model.training.schedules import random_positions
from i2st_model.training.view_draws import ViewDraws


class CachedClips:
    """A `ClipSource` over features that never change.

    A stored flip stands for a mirrored base view. Where there is none, the cells of a grid are
    moved; an embedding cannot be mirrored.

    Args:
        config: the run's settings.
        store: where masks come from.
        features: of the train videos.
        views: which stored view a clip shows.
    """

    def __init__(
        self, config: TrainConfig, store: FeatureStore, features: ClipFeatures, views: ViewDraws
    ) -> None:
        self.features = features
        self._seed, self._store, self._views = config.seed, store, views
        self._flips = flips_for(config, store.index.dataset_name)

    def draw(self, rows: NDArray[np.int64], number: int) -> DrawnClips:
        """Draw clips of videos.

        Args:
            rows: (B,) rows of train videos.
            number: of the pool.

        Returns:
            (B, T, ...) float32 features, and how their masks are seen.
        """
        words = Words(Stream.AUGMENT, self._seed, number)
        positions = random_positions(
            words, len(rows), self._store.num_stored, self._store.num_frames
        )
        wanted = np.array([self._flips and words.below(2) == 1 for _ in rows])
        views, mirrored = self._views.draw(number, rows, wanted)

        def masks(
            side: int, sources: NDArray[np.int64], here: NDArray[np.bool_]
        ) -> tuple[Tensor, Tensor]:
            shown = None if views is None else views[here]
            coverage, valid = self._store.mask_targets(sources, side, positions[here], shown)
            chosen = torch.from_numpy(mirrored[here])
            coverage[chosen] = coverage[chosen].flip(-1)
            return coverage, valid

        clips = self.features.clips(rows, positions, views)
        return DrawnClips(seen=flip_tokens(clips, mirrored, self.features.side), masks=masks)


def flip_tokens(tokens: Tensor, mirrored: NDArray[np.bool_], grid: int) -> Tensor:
    """Reverse the columns of the token grid of the chosen clips.

    Args:
        tokens: (B, T, S, P) float, the last L of S row-major cells. Changed in place; what comes
            before the cells has no sides.
        mirrored: (B,) bool.
        grid: g, L = g x g; 0 where there are no cells, and nothing is changed.

    Returns:
        The same tensor.
    """
    if not grid:
        return tokens
    chosen = torch.from_numpy(np.flatnonzero(mirrored)).to(tokens.device)
    clips = tokens[chosen]
    first = tokens.shape[2] - grid * grid
    clips[:, :, first:] = clips[:, :, first:].unflatten(2, (grid, grid)).flip(3).flatten(2, 3)
    tokens[chosen] = clips
    return tokens
