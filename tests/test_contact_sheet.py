import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.masks import pack_masks
from pipeline.segmenters import no_masks
from pipeline.showing.clips import Noun, ShownClip
from pipeline.showing.contact_sheet import FRAMES_PER_ROW, THUMBNAIL, contact_sheet, save_sheet
from pipeline.showing.mask_overlay import FILL_OPACITY, SLOT_COLOURS, paint_masks

GREY = 90


def half_masks(*slots):
    """(4, 128, 128). The left half of the frame in the given slots."""
    masks = np.zeros((4, 128, 128), bool)
    masks[list(slots), :, :64] = True
    return masks


def grey_picture(width=160, height=120):
    return Image.new("RGB", (width, height), (GREY,) * 3)


def filled(slot):
    """Colour of a grey pixel inside a mask."""
    colour = np.array(SLOT_COLOURS[slot])
    return np.round(GREY + FILL_OPACITY * (colour - GREY))


def found(*slots):
    return np.isin(np.arange(4), slots)


def clip(num_frames=3, size=(30, 40), slots=(0,), **changes):
    masks = no_masks(num_frames)
    masks.bits[:] = pack_masks(half_masks(*range(4)))
    masks.found[:, list(slots)] = True
    masks.score[:] = 0.5
    settings = {
        "class_name": "wave",
        "video_id": "wave/clip_1",
        "split": "train",
        "frames": np.full((num_frames, *size, 3), GREY, np.uint8),
        "frame_indices": np.arange(num_frames, dtype=np.int32),
        "nouns": (Noun(slot=0, text="person"), Noun(slot=1, text="ball")),
        "prompt_source": "table",
        "masks": masks,
    }
    return ShownClip(**{**settings, **changes})


def pixels(sheet):
    return np.asarray(sheet).astype(int)


def count(sheet, colour):
    # One number per pixel: comparing channels one by one takes several times as long.
    packed = np.asarray(sheet.convert("RGBA")).view(np.uint32)
    wanted = np.array([*colour, 255], np.uint8).view(np.uint32)
    return int((packed == wanted).sum())


@pytest.mark.parametrize("slot", range(4))
def test_a_mask_is_filled_outlined_and_leaves_the_rest_alone(slot):
    painted = pixels(paint_masks(grey_picture(), half_masks(slot), found(slot)))
    np.testing.assert_allclose(painted[:, :70], np.broadcast_to(filled(slot), (120, 70, 3)), atol=1)
    assert (painted[:, 90:] == GREY).all()
    outline = painted[60, 70:80]
    assert (abs(outline - SLOT_COLOURS[slot]).max(axis=1) <= 2).any()
    assert painted[60, 80:84].sum(axis=1).min() < 3 * GREY  # the dark line beside it


def test_masks_that_are_not_found_are_not_painted():
    assert paint_masks(grey_picture(), half_masks(0, 1), found()) == grey_picture()


def test_later_slots_lie_above_earlier_ones():
    both = pixels(paint_masks(grey_picture(), half_masks(0, 1), found(0, 1)))[60, 30]
    expected = filled(0) + FILL_OPACITY * (np.array(SLOT_COLOURS[1]) - filled(0))
    np.testing.assert_allclose(both, expected, atol=2)


def test_a_sheet_shows_every_frame_with_its_masks():
    sheet = contact_sheet([clip(num_frames=3)], title="t", subtitle="s")
    num_pixels = 3 * THUMBNAIL * (THUMBNAIL * 30 // 40)
    assert count(sheet, (GREY,) * 3) == pytest.approx(num_pixels / 2, rel=0.05)
    assert count(sheet, tuple(filled(0).astype(int))) == pytest.approx(num_pixels / 2, rel=0.05)


def test_every_frame_shows_its_own_mask():
    own = clip(num_frames=3)
    own.masks.bits[:2] = 0
    own.masks.found[1] = False
    sheet = contact_sheet([own], title="t", subtitle="s")
    num_pixels = THUMBNAIL * (THUMBNAIL * 30 // 40)
    assert count(sheet, tuple(filled(0).astype(int))) == pytest.approx(num_pixels / 2, rel=0.05)


def test_a_sheet_wraps_many_frames_and_stacks_clips():
    few = contact_sheet([clip(num_frames=FRAMES_PER_ROW)], title="t", subtitle="s")
    many = contact_sheet([clip(num_frames=FRAMES_PER_ROW + 1)], title="t", subtitle="s")
    two = contact_sheet([clip(), clip()], title="t", subtitle="s")
    assert few.width == many.width == two.width
    assert many.height - few.height == pytest.approx(THUMBNAIL * 30 / 40, abs=30)
    grey = [count(sheet, (GREY,) * 3) for sheet in (few, two)]
    assert grey[1] / grey[0] == pytest.approx(2 * 3 / FRAMES_PER_ROW, rel=0.02)


def test_what_was_not_found_has_a_hollow_swatch():
    def swatches(slots):
        sheet = contact_sheet([clip(slots=slots)], title="t", subtitle="s")
        head = sheet.crop((0, 110, sheet.width, 136))
        return count(head, SLOT_COLOURS[0]), count(head, SLOT_COLOURS[1])

    (actor, ball), (both_actor, both_ball) = swatches([0]), swatches([0, 1])
    assert 0 < ball < actor == both_actor == both_ball


def test_clips_without_masks_are_shown_as_they_are():
    sheet = contact_sheet([clip(masks=None)], title="t", subtitle="s")
    assert count(sheet, (GREY,) * 3) == 3 * THUMBNAIL * (THUMBNAIL * 30 // 40)
    assert count(sheet, SLOT_COLOURS[0]) == 0


def test_a_clip_outside_train_says_why_it_has_no_masks():
    def num_inked(split):
        sheet = contact_sheet([clip(masks=None, split=split)], title="t", subtitle="s")
        verdict = pixels(sheet)[84 + 38 : 84 + 60]  # below the title and the clip's name
        return int((verdict.min(axis=2) < 200).any(axis=0).sum())

    assert num_inked("val") == num_inked("test") > 3 * num_inked("train")
    assert num_inked("") == num_inked("train") > 0


@pytest.mark.parametrize("size", [(40, 30), (1, 400), (400, 1), (2, 2)])
def test_frames_of_any_shape_fit(size):
    sheet = contact_sheet([clip(size=size, masks=None)], title="t", subtitle="s")
    scale = THUMBNAIL / max(size)
    expected = 3 * max(1, round(size[0] * scale)) * max(1, round(size[1] * scale))
    assert count(sheet, (GREY,) * 3) == expected
    assert contact_sheet([clip(size=size)], title="t", subtitle="s").size == sheet.size


def test_names_of_any_length_and_letter_stay_in_their_line():
    name = "a\nb\x1b[31m\u202e" + "long " * 400
    sheet = contact_sheet([clip(video_id=name, class_name=name)], title=name, subtitle=name)
    assert sheet.size == contact_sheet([clip()], title="t", subtitle="s").size
    margin = pixels(sheet)[:, -20:]
    assert (margin == 255).all()


def test_four_full_scores_and_a_long_number_stay_below_their_frame():
    nouns = tuple(Noun(slot=slot, text="noun") for slot in range(4))
    own = clip(num_frames=1, slots=range(4), nouns=nouns, frame_indices=np.array([99999]))
    own.masks.score[:] = 1
    sheet = pixels(contact_sheet([own], title="t", subtitle="s"))
    caption = sheet[-50:, :]
    last = np.flatnonzero((caption != 255).any(axis=(0, 2))).max()
    assert last < 28 + THUMBNAIL + 8


def test_counts_and_scores_of_a_clip_are_those_of_the_frames_where_it_was_found():
    own = clip(num_frames=4)
    own.masks.found[:, 0] = [True, False, True, False]
    own.masks.score[:, 0] = [0.25, 1, 0.75, 1]
    told = own.to_json()
    assert told["nouns"] == [
        {"slot": 0, "noun": "person", "found": 2, "score": 0.5},
        {"slot": 1, "noun": "ball", "found": 0, "score": None},
    ]
    assert (told["frames"], told["masks"]) == ([0, 1, 2, 3], True)


def test_save_sheet_names_what_cannot_be_written(tmp_path):
    save_sheet(grey_picture(), tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (160, 120)
    for name in ("a.what", "no/folder.png"):
        with pytest.raises(ConfigError, match="cannot write the picture .* pass another --out"):
            save_sheet(grey_picture(), tmp_path / name)
