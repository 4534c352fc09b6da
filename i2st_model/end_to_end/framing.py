"""Which square of the frame a clip shows: one crop and one orientation for its frames and masks.

A frame of any size is resized to R x R without keeping its aspect, and S x S of that are seen: the
field's crop of 224 out of 256 (Paper: inferred from HyRSM and MoLo). The middle is the test view.

Shape letters: B clips, T frames, H and W a stored frame's height and width, R side of the resized
frame, S side of the view, all in pixels; G side of the mask targets in cells, M mask slots.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from i2st_model.drawing.draws import Words
from pipeline.masks import area_weights, union_of_slots, unpack_masks
from pipeline.segmenters import MASK_SIDE
from pipeline.views import mask_window


@dataclass(frozen=True, kw_only=True, slots=True)
class Crops:
    """What B clips show."""

    top: NDArray[np.int64]
    """(B,) first row of the R x R frame that is seen."""
    left: NDArray[np.int64]
    """(B,) first column, before the view is mirrored."""
    mirrored: NDArray[np.bool_]
    """(B,) whether left and right change places."""

    def of(self, clips: NDArray[np.bool_]) -> "Crops":
        """Those of some of the clips, (B,) bool."""
        return Crops(top=self.top[clips], left=self.left[clips], mirrored=self.mirrored[clips])


class Framing:
    """Sizes of frame and view, and the crops between them.

    Args:
        image_size: S, the side of the encoder's view.
        geometry: of the test view; one of `pipeline.views.GEOMETRIES`.
    """

    def __init__(self, image_size: int, geometry: str) -> None:
        window = mask_window(geometry)
        self.image_size = image_size
        # As pipeline.views.square_view rounds, so that the middle crop is its view.
        self.side = round(image_size * MASK_SIDE / (window.stop - window.start))
        self.room = self.side - image_size

    def middle(self, count: int) -> Crops:
        """Return the test view, ``count`` times."""
        offsets = np.full(count, self.room // 2, np.int64)
        return Crops(top=offsets, left=offsets, mirrored=np.zeros(count, bool))

    def draw(self, words: Words, count: int, *, flips: bool, crop: bool) -> Crops:
        """Draw crops uniformly, each mirrored with probability 1/2.

        Args:
            words: where the draw comes from; it takes as many for every setting.
            count: B.
            flips: False mirrors none.
            crop: False keeps the middle.

        Returns:
            The crops.
        """
        drawn = [(words.below(self.room + 1), words.below(self.room + 1)) for _ in range(count)]
        mirrored = np.array([words.below(2) == 1 and flips for _ in range(count)], bool)
        if not crop:
            drawn = [(self.room // 2, self.room // 2)] * count
        top, left = np.array(drawn, np.int64).reshape(count, 2).T
        return Crops(top=top, left=left, mirrored=mirrored)

    def view(self, frame: NDArray[np.uint8], crops: Crops, clip: int) -> NDArray[np.uint8]:
        """Show one frame of a clip.

        Args:
            frame: (H, W, 3) uint8 RGB.
            crops: of the clips.
            clip: which of them.

        Returns:
            (S, S, 3) uint8 RGB.
        """
        size = self.side, self.side
        resized = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR))
        top, left = int(crops.top[clip]), int(crops.left[clip])
        seen = resized[top : top + self.image_size, left : left + self.image_size]
        return seen[:, ::-1] if crops.mirrored[clip] else seen

    def coverage(
        self, bits: NDArray[np.uint8], found: NDArray[np.bool_], crops: Crops, grid: int
    ) -> NDArray[np.float32]:
        """Show the masks of clips as `view` shows their frames.

        A pixel of the R x R frame is 128 / R cells of a mask, so crops may cut cells; shares are
        exact all the same.

        Args:
            bits: (B, T, M, 2048) uint8, packed masks over the full frame.
            found: (B, T, M). Slots that are not found add nothing.
            crops: of the clips.
            grid: G.

        Returns:
            (B, T, G, G) float32 share of each cell of the view that is covered.
        """
        cells = unpack_masks(union_of_slots(bits, found)).astype(np.float32)
        rows = np.stack([self._weights(first, grid) for first in crops.top])
        columns = np.stack([self._weights(first, grid) for first in crops.left])
        columns[crops.mirrored] = columns[crops.mirrored, ::-1]
        return np.matmul(rows[:, None] @ cells, columns[:, None].swapaxes(-1, -2)).astype(
            np.float32, copy=False
        )

    def _weights(self, first: int, grid: int) -> NDArray[np.float32]:
        cells = MASK_SIDE / self.side
        weights = area_weights(grid, MASK_SIDE, self.image_size * cells, int(first) * cells)
        return weights.astype(np.float32)
