import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import open_clip, segment_anything, tiny_clip, tiny_clip_config, tiny_sam

from pipeline.errors import BackendError
from pipeline.manifests import Video
from pipeline.masks import pool_masks, unpack_masks
from pipeline.prompts import PromptSet
from pipeline.segmenters import ClipToSegment, get_segmenter
from pipeline.segmenters.dense_clip import DenseClip, DenseFeatures
from pipeline.segmenters.sam_clip import SamClip
from pipeline.segmenters.sam_clip_settings import SamClipSettings
from pipeline.segmenters.sam_decoding import Candidates, EmbeddedFrames, SamDecoder

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
GREEN = (0, 255, 0)


class ColourClip:
    """Sees the mean colour of each cell; words that are no colour mean green, the background."""

    device = torch.device("cpu")

    def encode_frames(self, frames):
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

    side = 64

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
        extent = torch.tensor(frames.extent[::-1])
        masks = []
        for frame, box, point in zip(frame_index, boxes, points, strict=True):
            canvas = frames.embeddings[frame]
            column, row = (point * extent).long().tolist()
            same = (canvas - canvas[:, row, column, None, None]).abs().amax(dim=0) < 0.4
            y, x = torch.meshgrid(*[torch.arange(self.side) + 0.5] * 2, indexing="ij")
            (x0, y0), (x1, y1) = (box.view(2, 2) * extent).tolist()
            inside = (x > x0) & (x < x1) & (y > y0) & (y < y1)
            speck = (y - row).abs().maximum((x - column).abs()) < 1
            masks.append(torch.stack([same & inside, same, torch.ones_like(same), speck]))
        logits = torch.where(torch.stack(masks), 8.0, -8.0)
        return Candidates(logits, torch.tensor([[0.9, 0.8, 1.0, 0.9]]).expand(len(masks), -1))


def picture(*discs, height=120, width=160):
    """Discs (colour, x, y, radius) on green, and the mask of each."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = GREEN
    y, x = np.mgrid[:height, :width] + 0.5
    masks = []
    for colour, centre_x, centre_y, radius in discs:
        mask = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        frame[mask] = COLOURS[colour]
        masks.append(mask)
    return frame, masks


def clip_of(frames, actor=("red",), objects=(), name="a"):
    return ClipToSegment(
        video=Video(video_id=name, path=name, class_name="c", split="train"),
        frames=np.stack(frames),
        frame_indices=np.arange(len(frames), dtype=np.int32),
        num_frames_decoded=len(frames),
        prompts=PromptSet(key="c", actor=actor, objects=objects, source="table"),
    )


def segment(*clips, **settings):
    return SamClip(ColourClip(), ColourSam(), SamClipSettings(**settings)).segment(clips)


def iou(cells, mask):
    pooled = pool_masks(mask)
    return (cells & pooled).sum() / (cells | pooled).sum()


def test_a_red_disc_on_green_comes_back():
    frames, discs = zip(*[picture(("red", 40 + 20 * i, 60, 22)) for i in range(4)], strict=True)
    masks = segment(clip_of(frames))[0]
    np.testing.assert_array_equal(masks.found, [[True, False, False, False]] * 4)
    for cells, (disc,) in zip(unpack_masks(masks.bits)[:, 0], discs, strict=True):
        assert iou(cells, disc) > 0.9
    assert (masks.score[:, 0] > 0.5).all()
    assert (masks.score <= 1).all()


def test_two_nouns_are_followed_through_the_frames():
    frames, discs = zip(
        *[picture(("red", 40 + 25 * i, 30, 20), ("blue", 120 - 25 * i, 90, 18)) for i in range(4)],
        strict=True,
    )
    masks = segment(clip_of(frames, objects=("blue",)))[0]
    assert masks.found[:, :2].all()
    for cells, (red, blue) in zip(unpack_masks(masks.bits), discs, strict=True):
        assert iou(cells[0], red) > 0.85
        assert iou(cells[1], blue) > 0.85


@pytest.mark.parametrize("least", [{"min_presence_cells": 1.1}, {"min_presence_frame": 100.0}])
def test_a_noun_must_pass_both_tests_of_presence(least):
    clip = clip_of([picture(("red", 80, 60, 30))[0]])
    assert segment(clip)[0].found.any()
    assert not segment(clip, **least)[0].found.any()


def test_an_absent_colour_is_not_found_beside_one_that_is():
    frames = [picture(("red", 80, 60, 25))[0]] * 2
    masks = segment(clip_of(frames, actor=("blue",), objects=("red",)))[0]
    np.testing.assert_array_equal(masks.found, [[False, True, False, False]] * 2)
    assert not masks.bits[:, 0].any()
    assert not masks.score[:, 0].any()


def test_a_clip_that_shows_no_noun_has_no_masks():
    masks = segment(clip_of([picture()[0]] * 3, actor=("red",), objects=("blue", "yellow")))[0]
    assert masks.bits.shape == (3, 4, 2048)
    assert not masks.found.any()


def test_a_frame_without_the_noun_abstains_in_a_clip_that_shows_it():
    frames = [picture(("red", 80, 60, 30))[0]] * 3 + [picture()[0]]
    masks = segment(clip_of(frames))[0]
    assert masks.found[:, 0].tolist() == [True, True, True, False]


def test_two_discs_of_a_noun_are_one_union():
    frame, discs = picture(("blue", 30, 40, 18), ("blue", 120, 80, 25), ("red", 80, 100, 12))
    masks = segment(clip_of([frame], actor=("red",), objects=("blue",)))[0]
    cells = unpack_masks(masks.bits)[0]
    assert iou(cells[1], discs[0] | discs[1]) > 0.9
    assert iou(cells[0], discs[2]) > 0.8
    assert masks.found[0].tolist() == [True, True, False, False]


def test_the_actor_who_touches_the_object_is_taken():
    frame, (near, ball, _) = picture(
        ("red", 40, 60, 20), ("blue", 68, 60, 10), ("red", 130, 60, 25)
    )
    masks = segment(clip_of([frame], actor=("red",), objects=("blue",)))[0]
    cells = unpack_masks(masks.bits)[0]
    # SAM's candidate "anywhere" would unite both actors; the box keeps them apart.
    assert iou(cells[0], near) > 0.8
    assert iou(cells[1], ball) > 0.8


def test_the_better_synonym_speaks_for_the_actor():
    frame, (disc,) = picture(("blue", 80, 60, 30))
    masks = segment(clip_of([frame], actor=("yellow", "blue")))[0]
    assert iou(unpack_masks(masks.bits)[0, 0], disc) > 0.9


def test_a_prompt_without_nouns_finds_nothing():
    masks = segment(clip_of([picture(("red", 80, 60, 30))[0]], actor=()))[0]
    assert not masks.found.any()


def test_masks_do_not_depend_on_order_company_or_launch_size():
    rng = np.random.default_rng(0)
    clips = []
    for i in range(4):
        frames = [
            picture(
                ("red", *rng.integers(30, 90, 2), 20),
                ("blue", *rng.integers(30, 90, 2), 12),
                height=120 + 8 * i,
            )[0]
            for _ in range(3)
        ]
        clips.append(clip_of(frames, objects=("blue",), name=str(i)))
    together = segment(*clips)
    backwards = segment(*clips[::-1])[::-1]
    alone = [segment(clip, prompts_per_launch=1)[0] for clip in clips]
    for first, second, third in zip(together, backwards, alone, strict=True):
        assert first.found.any()
        for name in ("bits", "found", "score"):
            expected = getattr(first, name)
            np.testing.assert_array_equal(getattr(second, name), expected)
            np.testing.assert_array_equal(getattr(third, name), expected)


def test_the_parts_fit_together_with_tiny_models_of_the_official_packages():
    model = tiny_clip()
    segmenter = SamClip(
        DenseClip(model, open_clip.get_tokenizer("ViT-B-16"), short_side=64),
        SamDecoder(tiny_sam()),
        # Random weights tell nothing apart: every noun counts as present.
        SamClipSettings(min_presence_cells=0, min_presence_frame=0, min_probability=0),
    )
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
    clips = [clip_of(frames, actor=("person",), objects=("ball", "hand")), clip_of(frames[:1])]
    masks, other = segmenter.segment(clips)
    assert masks.bits.shape == (3, 4, 2048)
    assert masks.bits.dtype == np.uint8
    assert masks.score.dtype == np.float16
    assert masks.found[:, :3].any()
    assert not masks.found[:, 3].any()
    np.testing.assert_array_equal(unpack_masks(masks.bits).any(axis=(2, 3)), masks.found)
    np.testing.assert_array_equal(segmenter.segment(clips[::-1])[0].bits, other.bits)


@pytest.fixture
def weight_files(tmp_path, monkeypatch):
    """Files of a tiny SAM that calls itself vit_b, and of a tiny CLIP that open_clip knows."""
    sam, clip = tiny_sam(width=768), tiny_clip()
    torch.save(sam.state_dict(), tmp_path / "sam.pth")
    torch.save(clip.state_dict(), tmp_path / "clip.pt")
    registry = {"vit_b": lambda checkpoint: tiny_sam(width=768)}
    monkeypatch.setattr(segment_anything, "sam_model_registry", registry)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", tiny_clip_config())
    return tmp_path


def test_weights_are_loaded_from_files_and_told_in_the_fingerprint(weight_files, caplog):
    import hashlib
    import json

    spec = f"sam_clip:{weight_files / 'sam.pth'},Tiny/{weight_files / 'clip.pt'}"
    segmenter = get_segmenter(spec, clip_short_side=64, min_area=0.01)
    facts = segmenter.fingerprint()
    for name, file in (("sam_sha256", "sam.pth"), ("clip_sha256", "clip.pt")):
        assert facts[name] == hashlib.sha256((weight_files / file).read_bytes()).hexdigest()
    assert facts["sam"] == "vit_b"
    assert facts["clip"] == "Tiny/clip.pt"
    assert facts["clip_mode"] == "clearclip"
    assert facts["min_area"] == 0.01
    assert facts["precision"] == "fp32"
    assert json.loads(json.dumps(facts)) == facts
    torch.testing.assert_close(
        segmenter.clip.encode_texts(["sky"]),
        tiny_clip().encode_text(open_clip.tokenize(["sky"]), normalize=True),
    )
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_absent_sam_weights_are_told_with_what_to_give(tmp_path):
    for spec in ("sam_clip", f"sam_clip:{tmp_path / 'none.pth'}"):
        with pytest.raises(BackendError, match="SAM weights") as caught:
            get_segmenter(spec)
        message = str(caught.value)
        assert "\n" not in message
        for hint in ("sam_clip:FILE", "--segmenter precomputed --masks DIR", "--segmenter none"):
            assert hint in message


def test_absent_clip_weights_are_told_with_what_to_give(weight_files):
    with pytest.raises(BackendError, match=r"lacks CLIP Tiny/nowhere.pt: .*sam_clip:SAM_FILE,Tiny"):
        get_segmenter(f"sam_clip:{weight_files / 'sam.pth'},Tiny/nowhere.pt")


def test_a_file_that_is_no_sam_checkpoint_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(BackendError, match=r"other.pth is no SAM checkpoint"):
        get_segmenter(f"sam_clip:{tmp_path / 'other.pth'}")
    torch.save(tiny_sam(width=48).state_dict(), tmp_path / "tiny.pth")
    with pytest.raises(BackendError, match=r"width 48; needed: one of vit_b, vit_l, vit_h"):
        get_segmenter(f"sam_clip:{tmp_path / 'tiny.pth'}")


# Pictures of scikit-image with points (x, y) read off a grid: inside, outside, share of the area.
PICTURES = {
    ("astronaut", "person"): (
        [(222, 110), (110, 330), (320, 290)],
        [(480, 60), (30, 60), (110, 60), (415, 60)],
        (0.25, 0.60),
    ),
    ("chelsea", "cat"): (
        [(170, 110), (260, 240), (200, 40)],
        [(430, 60), (430, 250)],
        (0.50, 0.90),
    ),
    ("coffee", "cup"): (
        [(250, 40), (230, 235)],
        [(560, 60), (30, 330), (110, 200)],
        (0.10, 0.35),
    ),
    ("rocket", "rocket"): (
        [(322, 200), (322, 300)],
        [(200, 100), (60, 100), (500, 200)],
        (0.01, 0.06),
    ),
}


@pytest.fixture(scope="module")
def real_segmenter():
    files = {name: os.environ.get(name) for name in ("I2ST_SAM_CKPT", "I2ST_CLIP_CKPT")}
    for name, file in files.items():
        if not file or not Path(file).is_file():
            pytest.skip(f"no real weights: set {name} to a local file")
    clip = f"ViT-B-16-quickgelu/{files['I2ST_CLIP_CKPT']}"
    return get_segmenter(f"sam_clip:{files['I2ST_SAM_CKPT']},{clip}")


@pytest.mark.weights
@pytest.mark.parametrize(("name", "noun"), PICTURES)
def test_real_weights_find_the_named_thing(real_segmenter, name, noun):
    from skimage import data

    inside, outside, (low, high) = PICTURES[name, noun]
    frame = getattr(data, name)()[..., :3]
    masks = real_segmenter.segment([clip_of([frame], actor=(noun,))])[0]
    assert masks.found[0, 0]
    cells = unpack_masks(masks.bits)[0, 0]

    def at(point):
        return cells[point[1] * 128 // frame.shape[0], point[0] * 128 // frame.shape[1]]

    assert all(at(point) for point in inside)
    assert not any(at(point) for point in outside)
    assert low <= cells.mean() <= high


@pytest.mark.weights
@pytest.mark.parametrize("name", sorted({name for name, _ in PICTURES}))
@pytest.mark.parametrize("noun", ["elephant", "submarine"])
def test_real_weights_do_not_find_what_is_absent(real_segmenter, name, noun):
    from skimage import data

    frame = getattr(data, name)()[..., :3]
    assert not real_segmenter.segment([clip_of([frame], actor=(noun,))])[0].found.any()


def test_without_a_named_checkpoint_the_usual_place_is_looked_at(tmp_path, monkeypatch):
    from pipeline.segmenters.sam_clip_weights import SAM_DEFAULT, load_sam

    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match=f"finds no SAM weights {SAM_DEFAULT}; .* put it there"):
        load_sam(None, "cpu")
    SAM_DEFAULT.parent.mkdir()
    torch.save({"nothing": torch.zeros(1)}, SAM_DEFAULT)
    with pytest.raises(BackendError, match=str(SAM_DEFAULT)) as refused:
        load_sam(None, "cpu")
    assert "finds no SAM weights" not in str(refused.value)
