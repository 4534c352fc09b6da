import pytest
import torch

from pipeline.segmenters.sam_clip.grid_instances import name_proposals
from pipeline.segmenters.sam_clip.settings import SamClipSettings
from pipeline.segmenters.sam_clip.text_bank import PromptText

RED, BLUE, GREEN = torch.eye(3)
SETTINGS = SamClipSettings(components=2)
THRESHOLDS = torch.tensor([0.5, 0.5, 2.0, 2.0])


def text():
    """Red in slot 0, blue in slot 1; green is the background."""
    words = torch.zeros(4, 1, 3)
    words[0, 0], words[1, 0] = RED, BLUE
    named = torch.tensor([[True], [True], [False], [False]])
    return PromptText(words, named, GREEN[None], torch.tensor([True]), (0, 1), 3)


def scene():
    """Cells of 12 x 16 over the frame: red and blue areas, 4 x 8 each, on green."""
    cells = GREEN.repeat(12, 16, 1)
    cells[0:4, 0:8], cells[8:12, 0:8] = RED, BLUE
    return cells


def area(top, bottom, left, right):
    """A mask on 64 x 64, of which the frame fills 48 rows; given in cells of the scene."""
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[4 * top : 4 * bottom, 4 * left : 4 * right] = True
    return mask


def named(*masks, quality=None, thresholds=THRESHOLDS, settings=SETTINGS):
    given = torch.ones(len(masks)) if quality is None else torch.tensor(quality)
    return name_proposals(
        torch.stack(masks), given, scene(), text(), thresholds, (48.0, 64.0), settings
    )


RED_AREA, BLUE_AREA = area(0, 4, 0, 8), area(8, 12, 0, 8)
GROUND, NOTHING = area(4, 8, 0, 16), area(0, 0, 0, 0)


def test_proposals_go_to_the_noun_that_they_show():
    masks, scores = named(GROUND, BLUE_AREA, RED_AREA, quality=[1.0, 0.81, 0.64])
    assert masks.shape == (4, 2, 128, 128)
    # The root of the quality times a probability of nearly 1.
    assert scores.tolist() == [[pytest.approx(0.8), 0], [pytest.approx(0.9), 0], [0, 0], [0, 0]]
    assert masks[0, 0].nonzero().aminmax().max == 63
    # Four of twelve rows are 42.7 of 128.
    assert masks[0, 0].sum() == masks[1, 0].sum() == 43 * 64


def test_a_whole_is_preferred_to_its_parts():
    parts = [area(0, 4, 0, 2), area(0, 2, 0, 8), area(0, 4, 2, 4)]
    masks, scores = named(*parts, RED_AREA)
    assert masks[0].flatten(1).sum(dim=1).tolist() == [43 * 64, 21 * 64]
    assert (scores[0] > 0.9).all()


def test_a_mask_of_mostly_ground_shows_nothing():
    _, scores = named(area(0, 12, 0, 8), area(0, 12, 0, 16))
    assert not scores.any()


def test_a_noun_that_the_clip_does_not_show_gets_nothing():
    absent = torch.tensor([2.0, 0.5, 2.0, 2.0])
    _, scores = named(RED_AREA, BLUE_AREA, thresholds=absent)
    assert scores[0].tolist() == [0, 0]
    assert scores[1, 0] > 0.9


@pytest.mark.parametrize("settings", [{"max_area": 0.16}, {"min_area": 0.17}])
def test_masks_beyond_the_limits_of_area_are_left_out(settings):
    _, scores = named(RED_AREA, NOTHING, settings=SamClipSettings(components=2, **settings))
    assert not scores.any()


def test_what_is_no_proposal_is_left_out():
    _, scores = named(RED_AREA, NOTHING, quality=[0.0, 1.0])
    assert not scores.any()
