"""`i2st train` and `i2st evaluate` as typed, in a folder with shards/ and runs/."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_shards import FINGERPRINT, make_shards
from typer.testing import CliRunner

import cli

SETTINGS = [
    word
    for setting in (
        "dim=16",
        "heads=2",
        "mask_width=8",
        "num_instances=2",
        "perception_layers=1",
        "val_episodes=40",
        "val_every=2",
        "state_every=2",
        "stem_tokens=2000",
    )
    for word in ("--set", setting)
]
TRAIN = ["train", "--episodes", "256", "--device", "cpu", *SETTINGS]


def i2st(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def refusal(*words):
    """The one line on stderr of a refused command, without settings and places."""
    done = i2st(*words)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with shards, a finished run of them, and shards of other kinds."""
    folder = tmp_path_factory.mktemp("place")
    make_shards(folder / "shards" / "toy")
    make_shards(folder / "other" / "bare", masks=False, name="bare")
    foreign = {**FINGERPRINT, "encoder": {"name": "other", "sha256": "1"}}
    make_shards(folder / "other" / "foreign", name="foreign", fingerprint=foreign)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        trained = i2st(*TRAIN, "--json")
    assert trained.exit_code == 0, trained.output
    (run,) = (folder / "runs").glob("20*")
    return folder, run.relative_to(folder), trained


@pytest.fixture
def run(place, monkeypatch):
    monkeypatch.chdir(place[0])
    return place[1]


def test_train_says_which_shards_and_run_and_every_setting(place, run):
    trained = place[2]
    found = json.loads(trained.stdout)
    assert found["run"] == str(run)
    assert found["steps"] == 4
    assert found["train_classes"] == 6
    assert (place[0] / found["checkpoint"]).is_file()
    assert "shards: shards/toy" in trained.stderr
    assert f"run: {run}" in trained.stderr
    settings = " ".join(trained.stderr.split())
    for word in ("episodes=256", "seed=0", "fast_rate=0.001", "threads=1", "network.dim=16"):
        assert word in settings
    assert max(map(len, trained.stderr.splitlines())) <= 80


def test_train_shows_no_setting_that_it_does_not_read(run, tmp_path):
    words = ["--masks", "off", "--select", "last", "--run", tmp_path / "off"]
    said = set(i2st(*TRAIN, *words).stderr.split())
    assert {"masks=off", "select=last", "alpha=0.0"} <= said
    names = {word.partition("=")[0] for word in said}
    assert not names & {"beta", "dice", "val_every", "val_episodes", "init_from", "options"}


@pytest.mark.parametrize(
    "words", [["--device", "cuda:99"], ["--shards", "gone"], ["--frames", 99], ["--run", "gone"]]
)
def test_a_refused_evaluation_says_only_why(run, words):
    assert refusal("evaluate", *words)
    assert "settings:" not in i2st("evaluate", *words).stderr


def test_evaluate_takes_the_newest_run_and_prints_the_documented_keys(run):
    done = i2st("evaluate", "--way", 5, "--shot", 3, "--episodes", 50, "--json")
    found = json.loads(done.stdout)
    asked = {"method": "i2st", "dataset": "toy", "split": "test", "way": 5, "shot": 3}
    asked |= {"queries": 1, "episodes": 50, "seed": 0}
    assert {key: found[key] for key in asked} == asked
    assert 20 < found["accuracy"] <= 100
    assert found["half_width"] >= 0
    assert len(found["digest"]) == 64
    assert found["checkpoint"] == f"{run}/checkpoint.safetensors"
    assert (found["num_classes"], found["num_videos"]) == (5, 40)
    assert "shards/toy: 128 videos of 6/5/5 train/val/test classes" in done.stderr


def test_a_refused_training_says_only_why_and_leaves_no_folder_behind(run):
    before = sorted(Path("runs").iterdir())
    assert i2st("train", "--preset", "fast").exit_code == 2
    for words in (["--way", 50], ["--run", run], ["--set", "options.x=1"], ["--device", "cuda:99"]):
        assert "settings:" not in i2st(*TRAIN, *words).stderr
        assert refusal(*TRAIN, *words)
    assert sorted(Path("runs").iterdir()) == before


def test_evaluate_prints_a_line_of_accuracy_and_its_interval(run):
    done = i2st("evaluate", "--method", "protonet", "--episodes", 50)
    assert done.exit_code == 0
    assert "protonet on toy test (5 classes, 40 videos), 5-way 1-shot, 50 episodes: " in done.stdout
    assert "+/-" in done.stdout
    assert "test 4" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--way", 6], "split 'test' of toy has 5 classes, way=6 needs 6; lower way"),
        (["--shot", 8], r"has 8 videos, shot=8 \+ queries=1 needs 9.*; lower shot or queries"),
        (["--queries", 9], r"shot=1 \+ queries=9 needs 10"),
        (["--split", "dev"], "no split 'dev'; known: train, val, test; pass one"),
        (["--split", "train"], "6 of 6 evaluated classes were trained on by runs/"),
        (["--method", "foo"], "unknown method 'foo'; known: bi_mhm, .*, otam, protonet"),
        (["--run", "nowhere"], "nowhere/config.json is absent; a run was needed"),
        (
            ["--shards", "other/foreign"],
            "trained on other features than .*: encoder 'synthetic' there and 'other' here",
        ),
        (["--frames", 3], "trained on clips of 4 frames, these have 3"),
        (["--episodes", 1], "episodes=1; at least 2"),
    ],
)
def test_evaluate_refuses_in_one_line(run, words, message):
    assert re.search(message, refusal("evaluate", *words))


def test_absent_runs_and_shards_are_named_with_what_makes_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no finished run of i2st in runs" in refusal("evaluate")
    assert "run `i2st extract`" in refusal("train")
    assert "run `i2st extract`" in refusal("evaluate", "--method", "otam")
    assert "no unfinished run in runs" in refusal("train", "--resume")
    assert not list(tmp_path.iterdir())


def test_train_without_masks_is_refused_and_the_hint_works(run, tmp_path):
    asked = [*TRAIN, "--shards", "other/bare", "--run", tmp_path / "run"]
    line = refusal(*asked)
    assert "the shards of bare hold no masks, masks='true' asks for them" in line
    assert line.endswith("or train with --masks off")
    assert i2st(*asked, "--masks", "off").exit_code == 0


def test_a_run_that_is_there_is_not_overwritten(run):
    line = refusal(*TRAIN, "--run", run)
    assert "holds a run already" in line
    assert "pass --resume" in line
    done = i2st("train", "--run", run, "--resume")  # the hint; it was finished
    assert done.exit_code == 0
    assert done.stderr.count("the run was finished already") == 1
    assert "is a file; a folder was needed" in refusal(*TRAIN, "--run", run / "log.jsonl")
    assert "a run was needed" in refusal("train", "--run", run / "log.jsonl", "--resume")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", 999], "train.episodes 256 there and 999 here"),
        (["--seed", 5], "train.seed 0 there and 5 here"),
        (["--set", "beta=0.25"], "train.beta 1.0 there and 0.25 here"),
        (["--set", "dim=32"], "network.dim 16 there and 32 here"),
        (["--shards", "other/foreign"], "dataset 'toy' there and 'foreign' here"),
    ],
)
def test_resume_with_another_setting_is_refused_naming_it(run, words, message):
    line = refusal("train", "--run", run, "--resume", *words)
    assert "is another run" in line
    assert message in line


def test_killed_run_resumes_by_itself_to_the_same_weights(place, tmp_path, repository):
    folder, run, _ = place
    (tmp_path / "shards").symlink_to(folder / "shards")
    environment = {**os.environ, "PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    killer = (
        "import os, signal, cli\n"
        "from i2st_model.training import keeper as training\n"
        "save = training.save_state\n"
        "def then_die(*args, **values):\n"
        "    save(*args, **values)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "training.save_state = then_die\n"
        "cli.main()\n"
    )
    command = [sys.executable, "-c", killer, *TRAIN]
    died = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert died.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "runs").iterdir()
    assert not (left / "checkpoint.safetensors").exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        hint = refusal("evaluate").rpartition("run `i2st ")[2].rstrip("`")
        assert hint == f"train --run runs/{left.name} --resume"
        # The run knows its episodes and settings; nothing has to be typed again.
        done = i2st(*hint.split(), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["steps"] == 4
    name = "checkpoint.safetensors"
    assert (left / name).read_bytes() == (folder / run / name).read_bytes()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set", "episodes=1e3"], "episodes=1000.0 is no whole number"),
        (["--set", "beta=x"], "beta='x' is no number"),
        (["--set", "bta=1"], "unknown setting 'bta'"),
        (["--set", "dim=10"], "dim=10 with heads=8"),
        (["--masks", "none"], "masks='none' is unknown; one of true, shuffled, off"),
        (["--select", "test"], "select='test' is unknown; one of val, last"),
        (["--preset", "foo"], "unknown preset 'foo'; known: i2st, linear"),
        (["--way", 7], "split 'train' of toy has 6 classes, way=7 needs 7; lower way"),
        (["--frames", 9], "frames=9 per clip, the shards of toy store 4"),
        (["--device", "gpu"], "unknown device 'gpu'; known: auto, cpu, cuda, cuda:N; pass one"),
        (["--seed", 2**64], "seed=18446744073709551616 is out of range"),
    ],
)
def test_train_refuses_in_one_line_and_records_nothing(run, tmp_path, words, message):
    folder = tmp_path / "run"
    assert message in refusal("train", "--run", folder, *words)
    assert not (folder / "config.json").exists()


@pytest.mark.parametrize("command", ["train", "evaluate", "demo"])
def test_negative_seed_is_a_usage_error(command):
    done = i2st(command, "--seed", -1)
    assert done.exit_code == 2
    assert "--seed" in done.stderr
