"""`i2st episodes` on stores of frames: their videos are all that episodes are drawn from."""

import json

import pytest
from synthetic_frames import make_frame_shards
from synthetic_shards import make_shards
from typer.testing import CliRunner

import cli
from i2st_model.records.episode_files import load_episodes

ASKED = ["--episodes", "40", "--shot", "2", "--seed", "3"]


def i2st(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Features and frames of the same videos, and frames of fewer."""
    folder = tmp_path_factory.mktemp("place")
    make_shards(folder / "features")
    make_frame_shards(folder / "frames", videos=8)
    make_frame_shards(folder / "fewer", videos=7)
    return folder


def make(place, kind, out):
    made = i2st("episodes", "make", out, "--shards", place / kind, *ASKED, "--json")
    assert made.exit_code == 0, made.output
    return made


def test_episodes_of_frames_are_those_of_features_of_the_same_videos(place, tmp_path):
    made = make(place, "frames", tmp_path / "a")
    assert f"shards: {place}/frames: 128 videos of 6/5/5 train/val/test classes" in made.stderr
    make(place, "features", tmp_path / "b")
    of_frames, of_features = load_episodes(tmp_path / "a"), load_episodes(tmp_path / "b")
    assert of_frames.same_episodes(of_features)
    assert of_frames.digest == json.loads(i2st("info", place / "frames", "--json").stdout)["digest"]


def test_episodes_are_verified_against_frames(place, tmp_path):
    make(place, "features", tmp_path / "e")
    verify = ["episodes", "verify", tmp_path / "e", "--shards"]
    differing = i2st(*verify, place / "frames")
    assert differing.exit_code == 4
    assert len(differing.stdout.splitlines()) == 1
    assert "differs: digest" in differing.stdout
    assert i2st(*verify, place / "frames", "--other-features").exit_code == 0
    assert "5 of 40 videos" in i2st(*verify, place / "fewer").stdout
