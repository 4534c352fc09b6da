"""`i2st show --view`: stored views as the encoder and the masks have them."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import cli
from pipeline.datasets import open_dataset
from pipeline.masks import unpack_masks
from pipeline.shards.reader import ShardReader
from pipeline.showing.shards import choose_rows, clips_of_shards

NUM_FRAMES, HEIGHT, WIDTH = 20, 32, 48
LEFT, RIGHT = 200, 90
"""Light of the halves of frame 0; frame k has k more."""


def run(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Shards with all views, masks of the left half, and the clips that they were made of."""
    root = tmp_path_factory.mktemp("shown_views")
    masks = np.zeros((NUM_FRAMES, HEIGHT, WIDTH), bool)
    masks[..., : WIDTH // 2] = True
    for name in ("clap", "jump", "wave"):
        folder = root / "videos" / name / "clip"
        folder.mkdir(parents=True)
        for number in range(NUM_FRAMES):
            frame = np.full((HEIGHT, WIDTH, 3), RIGHT + number, np.uint8)
            frame[:, : WIDTH // 2] = LEFT + number
            Image.fromarray(frame).save(folder / f"{number:02}.png")
        (root / "truth" / name).mkdir(parents=True)
        bits = np.packbits(masks.reshape(NUM_FRAMES, -1), axis=1)
        np.savez(root / "truth" / name / "clip.npz", bits=bits, height=HEIGHT, width=WIDTH)
    (root / "split.yaml").write_text("train: [clap]\nval: [jump]\ntest: [wave]\n")
    words = ["extract", "--videos", root / "videos", "--split-file", root / "split.yaml"]
    words += ["--encoder", "efficientnet-lite0", "--frames", "2", "--views", "flip,shift,scale"]
    words += ["--segmenter", "precomputed", "--masks", root / "truth", "--out", root / "shards"]
    done = run(*words)
    assert done.exit_code == 0, done.output
    return root


def shown(place, view_name):
    reader = ShardReader(place / "shards")
    source = open_dataset(videos=place / "videos", split_file=place / "split.yaml")
    rows = choose_rows(reader, [], limit=9, of_train=True)
    (clip,) = clips_of_shards(reader, rows, source.manifest, source, view_name=view_name)
    assert clip.video_id == "clap/clip"
    return clip


@pytest.mark.parametrize(
    ("view", "indices", "window", "mirrored"),
    [
        # Two segments of ten frames: their centres, a quarter of a segment earlier and later.
        ("flip", [5, 15], (8, 120), True),
        ("early", [2, 12], (8, 120), False),
        ("late", [7, 17], (8, 120), False),
        ("wide", [5, 15], (0, 128), False),
        ("near", [5, 15], (16, 112), False),
    ],
)
def test_a_view_is_shown_turned_with_its_masks_and_dark_where_it_sees_nothing(
    place, view, indices, window, mirrored
):
    clip = shown(place, view)
    assert clip.frame_indices.tolist() == indices
    halves = (RIGHT, LEFT) if mirrored else (LEFT, RIGHT)
    expected = np.empty((2, HEIGHT, WIDTH), int)
    for one, index in zip(expected, indices, strict=True):
        one[:, : WIDTH // 2], one[:, WIDTH // 2 :] = (half + index for half in halves)
    first, end = window
    seen = np.zeros((HEIGHT, WIDTH), bool)
    seen[first // 4 : end // 4, first * 3 // 8 : end * 3 // 8] = True  # 32 x 48 of 128 x 128
    expected[:, ~seen] //= 3
    np.testing.assert_array_equal(clip.frames, np.stack([expected] * 3, axis=-1))
    cells = unpack_masks(clip.masks.bits[:, 0])
    assert cells[:, :, :64].all() != mirrored
    assert cells[:, :, 64:].any() == mirrored


def test_without_a_view_whole_frames_are_shown(place):
    clip = shown(place, None)
    assert clip.frames[0, 0, 0, 0] == LEFT + 5
    assert clip.frames[0, -1, -1, 0] == RIGHT + 5


def test_show_takes_a_view_of_train_videos_alone(place, monkeypatch):
    monkeypatch.chdir(place)
    words = ["show", "shards", "--videos", "videos"]
    told = json.loads(run(*words, "--view", "flip", "--json").stdout)
    assert [clip["video_id"] for clip in told["clips"]] == ["clap/clip"]
    sheets = []
    for view in ("flip", "near"):
        assert run(*words, "--view", view, "--out", f"{view}.png").exit_code == 0
        sheets.append(np.asarray(Image.open(f"{view}.png")))
    assert (sheets[0] != sheets[1]).any()
    refused = run(*words, "--view", "zoom")
    assert refused.exit_code == 2
    line = "hold no stored view 'zoom'; known: flip, early, late, wide, near; correct --view"
    assert line in refused.stderr
    refused = run(*words, "--view", "flip", "--video", "jump/clip")
    assert refused.exit_code == 4
    assert "'jump/clip' is of split val; only train videos have stored views" in refused.stderr
    refused = run("show", "videos/clap/clip", "--view", "flip")
    assert refused.exit_code == 2
    assert "--view beside a video" in refused.stderr
