"""Scores of segmenters against hand-made truth, and what the controls see."""

import numpy as np
import pytest

from pipeline.datasets import open_dataset
from pipeline.errors import ConfigError
from pipeline.manifests import Video
from pipeline.masks import pack_masks
from pipeline.prompted_clips import prompted_clips
from pipeline.prompts import PromptSet
from pipeline.scoring.score_rows import ALL_CLASSES
from pipeline.scoring.segmenter_scores import score_segmenter, videos_with_truth
from pipeline.segmenters import ClipToSegment, get_segmenter
from pipeline.segmenters.precomputed import Precomputed
from pipeline.shards.records import Failure

NUM_FRAMES = 4
LEFT, TOP = (slice(0, 128), slice(0, 64)), (slice(0, 32), slice(0, 128))
TRUTHS = {"clap/a": LEFT, "clap/b": LEFT, "jump/a": TOP}


def video(video_id, split="train"):
    name = video_id.split("/")[0]
    return Video(
        video_id=video_id, path=f"{video_id}.avi", class_name=name, split=split, group=video_id[-1]
    )


def clip(video_id):
    name = video_id.split("/")[0]
    return ClipToSegment(
        video=video(video_id),
        frames=np.zeros((NUM_FRAMES, 8, 8, 3), np.uint8),
        frame_indices=np.arange(NUM_FRAMES, dtype=np.int32),
        num_frames_decoded=NUM_FRAMES,
        prompts=PromptSet(key=name, actor=("person",), objects=(), source="table"),
    )


def write_masks(folder, masks):
    """Masks of every frame; of a hidden last frame where the mask is given as a pair."""
    for video_id, area in masks.items():
        path = folder / f"{video_id}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.zeros((NUM_FRAMES, 128, 128), bool)
        pixels[(slice(0, NUM_FRAMES - 1), *area)] = True
        np.savez_compressed(path, bits=pack_masks(pixels), height=128, width=128)
    return Precomputed(folder)


@pytest.fixture
def truth(tmp_path):
    """Three videos whose last frame has no true mask."""
    return write_masks(tmp_path / "truth", TRUTHS)


def rows_of(scores, class_name=ALL_CLASSES):
    return {row.masks: row for row in scores.rows if row.class_name == class_name}


def test_scores_are_means_over_the_frames_that_have_a_truth(truth, tmp_path):
    own = write_masks(tmp_path / "own", {**TRUTHS, "jump/a": (slice(0, 16), slice(0, 128))})
    scores = score_segmenter(own, truth, [clip(name) for name in TRUTHS])
    assert (scores.segmenter, scores.num_videos, scores.failures) == ("precomputed", 3, ())
    row = rows_of(scores)["precomputed"]
    assert row.num_frames == 3 * (NUM_FRAMES - 1)
    assert row.scores["iou"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert row.scores["p_50"] == pytest.approx(2 / 3)
    assert row.scores["found"] == 1
    assert rows_of(scores, "clap")["precomputed"].scores["iou"] == 1
    assert rows_of(scores, "jump")["precomputed"].scores["iou"] == pytest.approx(0.5)


def test_half_width_is_that_of_a_mean_over_independent_sources(truth, tmp_path):
    own = write_masks(tmp_path / "own", {**TRUTHS, "jump/a": (slice(0, 16), slice(0, 128))})
    scores = score_segmenter(own, truth, [clip(name) for name in TRUTHS])
    # IoU of source a: 3 frames of 1 and 3 of 0.5; of source b: 3 of 1. The mean is 5 / 6.
    of_sources = (3 * (1 - 5 / 6) + 3 * (0.5 - 5 / 6), 3 * (1 - 5 / 6))
    expected = 1.96 * np.hypot(*of_sources) / 9
    assert rows_of(scores)["precomputed"].iou_half_width == pytest.approx(expected)
    assert rows_of(scores, "jump")["precomputed"].iou_half_width is None


def test_controls_score_what_their_areas_say(truth):
    rows = rows_of(score_segmenter(truth, truth, [clip(name) for name in TRUTHS]))
    assert list(rows) == ["precomputed", "whole_frame", "centre_ellipse", "other_video"]
    assert rows["whole_frame"].scores["iou"] == pytest.approx((0.5 + 0.5 + 0.25) / 3)
    ellipse = np.pi * 0.2 * 0.35
    left = (ellipse / 2) / (0.5 + ellipse / 2)
    assert rows["centre_ellipse"].scores["iou"] < left  # the top bar meets the ellipse's tip alone
    # Of another source and before it, round the end: a <- b of clap, b <- a of jump, ...
    left_and_top = 0.125 / (0.5 + 0.25 - 0.125)
    expected = (1 + 1 + left_and_top) / 3
    assert rows["other_video"].scores["iou"] == pytest.approx(expected)


def test_centre_prior_scores_as_the_control_of_the_same_ellipse(truth):
    rows = rows_of(score_segmenter(get_segmenter("center_prior"), truth, [clip("clap/a")]))
    assert rows["center_prior"].scores == rows["centre_ellipse"].scores
    assert "other_video" not in rows


def test_a_video_without_masks_scores_zero_and_one_that_fails_is_named(truth, tmp_path):
    own = write_masks(tmp_path / "own", {"clap/a": LEFT})
    np.savez(tmp_path / "own" / "clap" / "b.npz", bits=np.zeros((9, 2048), np.uint8))
    gone = Failure("jump/x", "train", "jump", "missing", "no file")
    clips = [clip("clap/a"), gone, clip("clap/b"), clip("jump/a")]
    told = []
    scores = score_segmenter(own, truth, clips, on_progress=told.append)
    assert sorted((f.video_id, f.reason) for f in scores.failures) == [
        ("clap/b", "masks"),
        ("jump/x", "missing"),
    ]
    assert told == [4]
    assert rows_of(scores, "jump")["precomputed"].scores["found"] == 0
    assert rows_of(scores)["precomputed"].scores["iou"] == pytest.approx(0.5)
    assert scores.to_json()["rows"][0]["class"] is None


def test_scores_do_not_depend_on_how_many_clips_share_a_call(truth, monkeypatch):
    clips = [clip(name) for name in TRUTHS]
    together = score_segmenter(truth, truth, clips)
    monkeypatch.setattr("pipeline.scoring.segmenter_scores.CLIPS_PER_CALL", 1)
    assert score_segmenter(truth, truth, clips) == together


def test_videos_with_truth_are_train_videos_in_turn_from_every_class(truth):
    videos = [video(name) for name in (*TRUTHS, "jump/unknown")]
    videos.append(video("run/a", split="test"))
    chosen = [v.video_id for v in videos_with_truth(videos, truth)]
    assert chosen == ["clap/a", "jump/a", "clap/b"]
    assert [v.video_id for v in videos_with_truth(videos, truth, limit=2)] == chosen[:2]
    with pytest.raises(ConfigError, match="--truth .* holds masks of none of 1 train videos"):
        videos_with_truth([video("jump/unknown")], truth)


def test_scores_of_nothing_are_refused(truth):
    gone = Failure("clap/x", "train", "clap", "missing", "no file")
    with pytest.raises(ConfigError, match=r"1 videos failed \(no file\)"):
        score_segmenter(truth, truth, [gone])


def test_scores_on_real_masks_agree_with_their_areas_in_pixels(real_data):
    root = real_data / "jhmdb21"
    source = open_dataset(dataset="jhmdb21", videos=root)
    truth = Precomputed(root / "masks")
    videos = videos_with_truth(source.videos, truth, limit=12)
    scores = score_segmenter(truth, truth, prompted_clips(source.manifest, videos, source.root))
    rows = rows_of(scores)
    assert set(rows["precomputed"].scores.values()) == {1.0}
    shares = []
    for one in videos:
        with np.load(root / "masks" / f"{one.video_id}.npz") as file:
            bits, size = file["bits"], int(file["height"]) * int(file["width"])
        chosen = (2 * np.arange(8) + 1) * len(bits) // 16
        shares += [int(np.unpackbits(bits[frame], count=size).sum()) / size for frame in chosen]
    assert rows["whole_frame"].num_frames == len(shares)
    assert rows["whole_frame"].scores["iou"] == pytest.approx(np.mean(shares), rel=0.01)
