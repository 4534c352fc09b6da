import numpy as np
import pytest
import torch

from pipeline.segmenters.sam.decoding import EmbeddedFrames
from pipeline.segmenters.sam_clip.frame_embedder import FrameEmbedder, over_frame


class CountingSam:
    """Embeds a frame as its mean, and remembers how many it saw at once."""

    def __init__(self):
        self.seen = []

    def embed(self, frames):
        self.seen.append(len(frames))
        return EmbeddedFrames(frames.float().mean(dim=(1, 2, 3)), (3.0, 4.0))


def frames():
    return torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 3, 4, 3)


def test_only_the_frames_that_are_asked_for_are_embedded():
    sam = CountingSam()
    embedded = FrameEmbedder(sam, frames()).of(np.array([3, 1]))
    assert embedded.embeddings.tolist() == [3, 1]
    assert sam.seen == [2]


def test_frames_that_are_embedded_are_not_embedded_again():
    sam = CountingSam()
    embedder = FrameEmbedder(sam, frames())
    assert embedder.of_all().embeddings.tolist() == [0, 1, 2, 3, 4]
    embedded = embedder.of(np.array([3, 1]))
    assert embedded.embeddings.tolist() == [3, 1]
    assert embedded.extent == (3.0, 4.0)
    embedder.of_all()
    assert sam.seen == [5]


@pytest.mark.parametrize("extent", [(192.0, 256.0), (144.0, 256.0), (256.0, 170.5)])
def test_embeddings_are_resampled_to_cells_that_divide_the_frame(extent):
    # Each cell of the canvas holds its centre's place, in cells of the masks.
    places = 4 * torch.arange(64.0) + 2
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    canvas = EmbeddedFrames(torch.stack([rows, columns])[None], extent)
    resampled = over_frame(canvas, mask_side=256)[0]
    grid = [round(length / 4) for length in extent]
    assert list(resampled.shape) == [2, *grid]
    y, x = ((np.arange(n) + 0.5) / n * length for n, length in zip(grid, extent, strict=True))
    expected = np.clip(np.stack(np.meshgrid(y, x, indexing="ij")), 2, 254)
    np.testing.assert_allclose(resampled, expected, atol=1e-3)
