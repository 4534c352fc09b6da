"""A CLIP and a SAM that see colours: the whole path of sam_clip without weights."""

import torch
from colour_scenes import COLOURS, GREEN

from pipeline.segmenters.sam.decoding import Candidates, EmbeddedFrames
from pipeline.segmenters.sam.points import ProposalSettings
from pipeline.segmenters.sam_clip import SamClip
from pipeline.segmenters.sam_clip.dense_clip import DenseFeatures
from pipeline.segmenters.sam_clip.settings import SamClipSettings

GRID = ProposalSettings(points_per_side=8, kept=16)


class ColourClip:
    """Sees the mean colour of each cell; words that are no colour mean green, the background."""

    device = torch.device("cpu")
    needs_proxy = False

    def encode_frames(self, frames, proxy=None):
        pixels = frames.permute(0, 3, 1, 2).float() / 255
        cells = torch.nn.functional.adaptive_avg_pool2d(pixels, (28, 37)).permute(0, 2, 3, 1)
        # The class token of a picture answers for everything that is in it.
        frame = torch.ones(len(frames), 3)
        unit = torch.nn.functional.normalize
        return DenseFeatures(unit(cells, dim=-1), unit(frame, dim=-1))

    def encode_texts(self, texts):
        def colour(text):
            return next((c for name, c in COLOURS.items() if name in text), GREEN)

        rows = torch.tensor([colour(text) for text in texts]).float()
        return torch.nn.functional.normalize(rows, dim=-1)


class ColourSam:
    """Offers what has the colour of the point: in the box, anywhere; then everything and a speck.

    Its quality praises "everything" most.
    """

    prompts_per_launch = 4

    def __init__(self, side=64):
        self.side = self.mask_side = side

    def embed(self, frames):
        height, width = frames.shape[1:3]
        scale = self.side / max(height, width)
        size = (round(height * scale), round(width * scale))
        pixels = frames.permute(0, 3, 1, 2).float() / 255
        small = torch.nn.functional.interpolate(pixels, size, mode="area")
        canvas = torch.zeros(len(frames), 3, self.side, self.side)
        canvas[:, :, : size[0], : size[1]] = small
        return EmbeddedFrames(canvas, (float(size[0]), float(size[1])))

    def decode(self, frames, frame_index, boxes, points):
        masks = [
            torch.stack([seen[0] & self._inside(box, frames.extent), *seen])
            for seen, box in zip(self._seen(frames, frame_index, points), boxes, strict=True)
        ]
        logits = torch.where(torch.stack(masks), 8.0, -8.0)
        return Candidates(logits, torch.tensor([[0.9, 0.8, 1.0, 0.9]]).expand(len(masks), -1))

    def decode_points(self, frames, frame_index, points):
        masks = [torch.stack(seen) for seen in self._seen(frames, frame_index, points)]
        logits = torch.where(torch.stack(masks), 8.0, -8.0)
        return Candidates(logits, torch.tensor([[0.95, 1.0, 0.95]]).expand(len(masks), -1))

    def _centres(self):
        return torch.meshgrid(*[torch.arange(self.side) + 0.5] * 2, indexing="ij")

    def _seen(self, frames, frame_index, points):
        """What has the colour of each point, everything, and a speck at the point."""
        y, x = self._centres()
        for frame, point in zip(frame_index, points, strict=True):
            canvas = frames.embeddings[frame]
            column, row = (point * torch.tensor(frames.extent[::-1])).long().tolist()
            same = (canvas - canvas[:, row, column, None, None]).abs().amax(dim=0) < 0.4
            speck = (y - row).abs().maximum((x - column).abs()) < 1
            yield same, torch.ones_like(same), speck

    def _inside(self, box, extent):
        y, x = self._centres()
        (x0, y0), (x1, y1) = (box.view(2, 2) * torch.tensor(extent[::-1])).tolist()
        return (x > x0) & (x < x1) & (y > y0) & (y < y1)


def segment(*clips, sam=None, fixed=None, **settings):
    segmenter = SamClip(
        ColourClip(), sam or ColourSam(), SamClipSettings(**settings), grid=GRID, fixed=fixed
    )
    return segmenter.segment(clips)
