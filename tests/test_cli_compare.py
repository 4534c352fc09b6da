"""`i2st compare`: methods, runs and result files on the same episodes."""

import json
import re
from pathlib import Path

import pytest
from synthetic_shards import make_shards
from typer.testing import CliRunner

import cli
from i2st_model.comparison import compare
from i2st_model.records.results import load_results

SETTINGS = ("dim=16", "heads=2", "mask_width=8", "num_instances=2", "perception_layers=1")
TRAIN = ["train", "--episodes", "64", "--device", "cpu", "--select", "last"]
TRAIN += [word for setting in (*SETTINGS, "stem_tokens=2000") for word in ("--set", setting)]
FEW = ["--episodes", "60"]


def i2st(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def done(*words):
    result = i2st(*words)
    assert result.exit_code == 0, result.output
    return result


def found(*words):
    return json.loads(done(*words, "--json").stdout)


def refusal(*words):
    result = i2st(*words)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Shards, two runs of them, and the saved results of three methods."""
    folder = tmp_path_factory.mktemp("place")
    make_shards(folder / "shards" / "toy", signal=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed in (0, 1):
            done(*TRAIN, "--seed", seed, "--run", f"runs/seed{seed}")
        runs = ["--run", "runs/seed0", "--run", "runs/seed1"]
        done(
            "evaluate", *FEW, "--method", "otam,bi_mhm,i2st", *runs, "--shot", "1,3", "--save", "r"
        )
        done("evaluate", *FEW, "--method", "otam", "--seed", 5, "--save", "other")
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


def test_methods_runs_and_files_give_the_same_comparison():
    live = found("compare", "i2st", "otam", *FEW, "--shot", "1,3")
    runs = found("compare", "runs/seed1", "otam", *FEW, "--shot", "1,3")
    mixed = found("compare", "runs/seed1", "r@otam")
    assert live["cells"] == runs["cells"] == mixed["cells"]
    assert [(cell["way"], cell["shot"]) for cell in live["cells"]] == [(5, 1), (5, 3)]
    results = {
        (one.made_by.run or one.made_by.method): one for one in load_results(Path("r"))[::-1]
    }
    by_hand = compare([results["seed1"]], [results["otam"]])  # the first cell
    assert live["cells"][0]["difference"] == by_hand.difference
    assert "pass runs with other seeds" in live["cells"][0]["why_not"]["seeds"]


def test_runs_in_a_row_and_those_in_a_file_are_training_seeds():
    kept = found("compare", "r@i2st", "r@otam")
    live = found("compare", "runs/seed0,runs/seed1", "otam", *FEW, "--shot", "1,3")
    assert kept["cells"] == live["cells"]
    assert kept["cells"][0]["num_seeds"] == 2
    assert kept["cells"][0]["intervals"]["seeds"] is not None


def test_folder_without_a_run_does_not_hide_the_method_of_its_name(place):
    before = found("compare", "otam", "bi_mhm", *FEW)
    (place / "otam").mkdir()
    try:
        assert found("compare", "otam", "bi_mhm", *FEW) == before
    finally:
        (place / "otam").rmdir()


def test_runs_are_paired_by_seed():
    straight = found("compare", "runs/seed0,runs/seed1", "runs/seed1,runs/seed0", *FEW)
    assert straight["cells"][0]["difference"] == 0
    assert straight["cells"][0]["intervals"]["seeds"] == [0, 0]


def test_table_says_which_interval_answers_what():
    text = done("compare", "bi_mhm", "otam", *FEW).stdout
    cell = found("compare", "bi_mhm", "otam", *FEW)["cells"][0]
    for name in ("episodes", "videos", "classes"):
        low, high = cell["intervals"][name]
        shown = f"A - B, over {name} {cell['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
        assert shown in " ".join(text.split())
        assert f"\nover {name}: would " in text
    assert "no interval over seeds" not in text  # nothing was trained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["r", "otam"], "r holds results of otam, bi_mhm, i2st; one method .*; write r@otam$"),
        (["r@x", "otam"], "r holds no results of x; one of otam, bi_mhm, i2st was needed"),
        (
            ["r@otam", "other"],
            "r@otam has 60 5-way 1-shot .* other has 60 .*seed 5.*--episode-file",
        ),
        (["r@otam", "r@i2st", "--shot", "3"], "--shot beside a result file, for which it says"),
        (["r@otam", "otam", "--episode-file", "e"], "--episode-file beside a result file"),
        (["r@otam", "r@i2st", "--frames", "4"], "--frames beside result files alone"),
        (["runs/none", "otam"], "runs/none is absent; a result file, the folder of a run or"),
        (["nonsense", "otam"], "unknown method 'nonsense'; known: bi_mhm"),
        (["shards", "otam"], "shards/config.json is absent; a run was needed"),
        (["otam,", "otam"], "A 'otam,' holds an empty name"),
        (["otam,bi_mhm,protonet", "runs/seed0,runs/seed1"], "3 runs beside 2; as many on both"),
        (["otam", "bi_mhm", "--format", "html"], "format='html' is unknown"),
    ],
)
def test_compare_refuses_in_one_line(words, message):
    assert re.search(message, refusal("compare", *words))


def test_sides_that_saw_other_frames_are_said_in_one_note():
    for frames in (4, 2):
        asked = ("--method", "protonet", "--frames", frames, "--save", f"frames{frames}")
        done("evaluate", *FEW, *asked)
    said = "A saw 4 frames, B 2 frames: the difference is not that of the methods alone."
    assert done("compare", "frames4", "frames2").stdout.count(said) == 1
    assert found("compare", "frames4", "frames2")["cells"][0]["seen"] == ["4 frames", "2 frames"]
    assert "frames, B" not in done("compare", "frames4", "r@otam").stdout


@pytest.mark.parametrize("form", ["table", "json"])
def test_format_beside_json_is_refused(form):
    both = ("--format", form, "--json")
    for words in (("evaluate", *FEW), ("compare", "r@otam", "r@bi_mhm"), ("sweep", "frames")):
        assert "--format beside --json" in refusal(*words, *both)
