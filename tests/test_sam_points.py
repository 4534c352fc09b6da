import numpy as np
import pytest
import torch
from host_waits import NoHostWaits
from tiny_models import tiny_sam

from pipeline.segmenters.sam.decoding import Candidates, EmbeddedFrames, SamDecoder
from pipeline.segmenters.sam.points import (
    ProposalSettings,
    grid_points,
    judge,
    overlap_cells,
    propose,
    suppress,
)

SIDE = 64


class ColourDecoder:
    """Offers what has the colour of the point, everything, and the first again with less praise.

    Pictures are (B, 1, SIDE, SIDE) numbers of colours in place of embeddings; colour 0 is ground.
    """

    def decode_points(self, frames, frame_index, points):
        masks = []
        for frame, (x, y) in zip(frame_index.tolist(), points.tolist(), strict=True):
            canvas = frames.embeddings[frame, 0]
            row, column = int(y * frames.extent[0]), int(x * frames.extent[1])
            same = canvas == canvas[row, column]
            masks.append(torch.stack([same, torch.ones_like(same), same]))
        logits = torch.where(torch.stack(masks), 8.0, -8.0)
        return Candidates(logits, torch.tensor([[0.9, 1.0, 0.85]]).expand(len(masks), -1))


def picture(*boxes, extent=(48.0, 64.0)):
    """A picture with boxes (colour, top, bottom, left, right)."""
    canvas = torch.zeros(1, 1, SIDE, SIDE)
    for colour, top, bottom, left, right in boxes:
        canvas[..., top:bottom, left:right] = colour
    return EmbeddedFrames(canvas, extent)


def test_grid_points_are_the_centres_of_cells():
    expected = [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    assert grid_points(2, torch.device("cpu")).tolist() == expected


def test_each_thing_is_proposed_once():
    frame = picture((1, 8, 24, 8, 24), (2, 28, 44, 40, 60))
    found = propose(ColourDecoder(), frame, ProposalSettings(kept=8))
    assert found.masks.shape == (1, 8, SIDE, SIDE)
    # The boxes and the ground; everything is too large.
    assert found.valid.tolist() == [[True] * 3 + [False] * 5]
    canvas = frame.embeddings[0, 0]
    kept = [mask.numpy() for mask in found.masks[0, :3]]
    for colour in (0, 1, 2):
        expected = (canvas == colour).numpy()
        expected[48:] = False
        assert sum(np.array_equal(mask, expected) for mask in kept) == 1
    assert not found.masks[0, 3:].any()
    assert found.quality[0].tolist() == pytest.approx([0.9] * 3 + [0.0] * 5)


def test_frames_are_proposed_for_one_by_one():
    first, second = picture((1, 8, 24, 8, 24)), picture((1, 0, 30, 30, 60))
    both = EmbeddedFrames(torch.cat([first.embeddings, second.embeddings]), first.extent)
    together = propose(ColourDecoder(), both)
    for i, frame in enumerate((first, second)):
        for ours, alone in zip(together, propose(ColourDecoder(), frame), strict=True):
            assert torch.equal(ours[i], alone[0])


def one_mask(rows, columns, *, inside=8.0, edge=8.0, quality=0.95):
    """Candidates of one point that are all the same box; its border has other logits."""
    logits = torch.full((1, 3, SIDE, SIDE), -8.0)
    logits[..., :rows, :columns] = edge
    logits[..., 1 : rows - 1, 1 : columns - 1] = inside
    return Candidates(logits, torch.full((1, 3), quality))


@pytest.mark.parametrize(
    ("candidates", "kept"),
    [
        (one_mask(20, 20), True),
        (one_mask(20, 20, quality=0.7), False),
        # 324 of 400 cells stay above +1: 0.81, below the 0.9 asked for.
        (one_mask(20, 20, edge=0.5), False),
        (one_mask(1, 1), False),  # 1 / 3072 of the frame
        (one_mask(1, 2), True),  # 6.5e-4 of it
        (one_mask(47, 64), False),  # 0.98 of it
        (one_mask(0, 0), False),
    ],
)
def test_masks_are_rejected_by_quality_stability_and_area(candidates, kept):
    masks, scores = judge(candidates, (48.0, 64.0), ProposalSettings())
    assert (scores > 0).tolist() == [kept] * 3
    assert masks.shape == (3, SIDE, SIDE)


def test_what_lies_beyond_the_frame_does_not_count():
    masks, scores = judge(one_mask(SIDE, 20), (47.4, 64.0), ProposalSettings())
    assert masks[0].sum() == 47 * 20
    assert (scores > 0).all()


def test_the_smallest_mask_touches_a_cell():
    masks = torch.zeros(2, 256, 256, dtype=torch.bool)
    masks[0, 100, 77] = True
    masks[1, :96, :] = True
    cells = overlap_cells(masks, (192.0, 256.0)).view(2, 64, 64)
    assert cells[0].nonzero().tolist() == [[100 // 3, 77 // 4]]
    assert cells[1].sum() == 32 * 64


def greedy_loop(cells, scores, count, max_overlap):
    kept = []
    for i in sorted(range(len(scores)), key=lambda i: (-scores[i], -cells[i].sum())):
        ious = [(cells[i] & cells[k]).sum() / max(1, (cells[i] | cells[k]).sum()) for k in kept]
        if scores[i] > 0 and all(iou <= max_overlap for iou in ious) and len(kept) < count:
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_suppression_is_the_greedy_one(seed):
    rng = np.random.default_rng(seed)
    cells = np.zeros((40, 8, 8), bool)
    for mask in cells:
        top, left = rng.integers(0, 5, 2)
        mask[top : top + rng.integers(1, 5), left : left + rng.integers(1, 5)] = True
    # Few values, so that some are equal, and some 0.
    scores = (rng.integers(0, 6, 40) / 5).astype(np.float32)
    flat = torch.from_numpy(cells.reshape(40, -1))
    for count in (3, 30):
        rows, valid = suppress(flat, torch.from_numpy(scores), count, 0.4)
        expected = greedy_loop(cells.reshape(40, -1), scores, count, 0.4)
        assert len(rows) == count
        assert rows[valid].tolist() == expected
        assert valid.tolist() == [True] * len(expected) + [False] * (count - len(expected))


@torch.inference_mode()
def test_the_official_decoder_is_asked_without_waiting_for_it():
    decoder = SamDecoder(tiny_sam(), frames_per_launch=2, prompts_per_launch=16)
    embedded = decoder.embed(torch.randint(0, 256, (2, 60, 90, 3), dtype=torch.uint8))
    settings = ProposalSettings(
        points_per_side=4, kept=5, min_quality=-9.0, min_stability=0.0, min_area=0.0, max_area=1.0
    )
    with NoHostWaits():
        found = propose(decoder, embedded, settings)
    assert found.masks.shape == (2, 5, 32, 32)
    assert not found.masks[:, :, 22:].any()
