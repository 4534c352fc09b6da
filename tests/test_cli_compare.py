"""`i2st compare`: methods, runs and result files on the same episodes."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_shards import make_shards
from typed import FEW, TRAIN, done, i2st, refusal

from i2st_model.checkpoints import load_checkpoint, save_checkpoint
from i2st_model.comparison import compare
from i2st_model.records.results import load_results


def found(*words):
    return json.loads(done(*words, "--json").stdout)


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
        done("evaluate", *FEW, "--method", "otam", "--shot", "1,3", "--save", "again")
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
    (cell,) = straight["cells"]
    assert cell["difference"] == 0
    assert cell["num_seeds"] == 2
    assert cell["why_not"]["seeds"].startswith("no query differs")


def test_table_says_which_interval_answers_what():
    text = done("compare", "bi_mhm", "otam", *FEW).stdout
    cell = found("compare", "bi_mhm", "otam", *FEW)["cells"][0]
    for name in ("episodes", "videos", "classes"):
        low, high = cell["intervals"][name]
        shown = f"A - B, over {name} {cell['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
        assert shown in " ".join(text.split())
        assert f"\nover {name}: would " in text
    assert "no interval over seeds" not in text  # nothing was trained


def test_saved_files_keep_the_sources_of_their_videos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shards(tmp_path / "shards" / "toy", signal=1.0, group_size=2)
    done("evaluate", *FEW, "--method", "otam,bi_mhm", "--save", "r")
    live, kept = found("compare", "otam", "bi_mhm", *FEW), found("compare", "r@otam", "r@bi_mhm")
    assert live["cells"] == kept["cells"]
    assert (live["cells"][0]["num_videos"], live["cells"][0]["num_sources"]) == (40, 20)
    text = done("compare", "r@otam", "r@bi_mhm").stdout
    assert "40 videos of 20 sources" in text
    assert "A - B, over sources" in text
    assert "over videos" not in text


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
        (["otam,bi_mhm", "otam"], "A: otam and bi_mhm differ in .* seed: method 'otam' there and"),
        (["r@i2st", "again,r@otam"], "B: again and r@otam are one method without training; train"),
        (["r@otam", "runs/seed0,./runs/seed0"], "B: runs/seed0 and .* are one training; .*leave"),
        (["otam", "bi_mhm", "--format", "html"], "format='html' is unknown"),
    ],
)
def test_compare_refuses_in_one_line(words, message):
    assert re.search(message, refusal("compare", *words))


@pytest.fixture
def trained(tmp_path):
    """Makes a finished run out of runs/seed0: other weights, and what else is given."""

    def make(name, *, seed=5, train_classes=None, **settings):
        run = tmp_path / name
        shutil.copytree("runs/seed0", run)
        kept = load_checkpoint(run)
        weights = {name: value.clone() for name, value in kept.weights.items()}
        next(value for value in weights.values() if value.is_floating_point()).mul_(1.01)
        train = {**kept.info.train, "seed": seed, **settings.pop("train", {})}
        network = {**kept.info.network, **settings.pop("network", {})}
        classes = train_classes or kept.info.train_classes
        values = {"train_classes": classes, "network": network, **settings}
        save_checkpoint(run, weights, replace(kept.info, train=train, **values))
        return run

    return make


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 0}, "are both of seed 0; trainings of one .* seeds were needed; leave one out$"),
        ({"train": {"beta": 0.5}}, "differ in more than the seed: beta 1.0 there and 0.5 here; "),
        ({"train": {"classes": ["a"]}}, r"the seed: classes none there and \['a'\] here"),
        ({"network": {"global_weight": 0.9}}, r"network\.global_weight 0\.\d+ there and 0\.9 here"),
        ({"digest": "0" * 64}, r"the seed: digest \w+\.\.\. there and 0{12}\.\.\. here"),
        ({"train_classes": ["train 0"]}, "the seed: train class 'train 1', which one of them lac"),
    ],
    ids=str,
)
def test_runs_of_a_side_differ_in_nothing_but_the_seed(trained, tmp_path, changed, message):
    other = trained("other", **changed)
    line = refusal("compare", f"runs/seed0,{other}", "otam", *FEW)
    assert re.search(f"A: runs/seed0 and {other} .*{message}", line)
    done("evaluate", *FEW, "--run", "runs/seed0", "--run", other, "--save", tmp_path / "two")
    line = refusal("compare", "r@otam", tmp_path / "two")
    assert re.search(rf"B: .*two \(run seed0\) and .*two \(run other\) .*{message}", line)
    done("compare", "runs/seed0", other, *FEW)  # one against the other


def test_a_table_of_runs_fits_a_terminal_and_names_the_methods_of_files():
    both = ",".join(str(Path(f"runs/seed{seed}").resolve()) for seed in (0, 1))
    text = done("compare", both, "r@otam").stdout
    names = [line.split("  ")[0] for line in text.splitlines()[2:4]]
    assert names == ["A: i2st (2 seeds)", "B: otam (r)"]
    text = done("compare", "otam:temperature=0.5", "other").stdout
    names = [line.split("  ")[0] for line in text.splitlines()[2:4]]
    assert names == ["A: otam:temperature=0.5", "B: otam (other)"]


def test_sides_are_named_by_what_outlives_their_folders():
    text = done("compare", "runs/seed0,runs/seed1", "otam", *FEW, "--format", "latex").stdout
    checkpoint = "checkpoint [0-9a-f]{12}"
    said = rf"% A: run seed0, seed 0, {checkpoint}; run seed1, seed 1, {checkpoint}\.\n"
    assert re.search(said, text)
    assert "% B: run" not in text


def test_seeds_are_compared_whatever_else_decides_no_weight(trained):
    other = trained("other", train={"device": "cuda", "log_every": 7})
    (cell,) = found("compare", f"runs/seed0,{other}", "otam", *FEW)["cells"]
    assert (cell["num_seeds"], cell["runs"][1]) == (2, [])
    assert [words.split(", ")[:2] for words in cell["runs"][0]] == [
        ["run seed0", "seed 0"],
        ["run other", "seed 5"],
    ]


def test_unequal_numbers_of_runs_are_refused_before_anything_is_evaluated(trained):
    three = f"runs/seed0,runs/seed1,{trained('third')}"
    result = i2st("compare", three, "runs/seed0,runs/seed1", *FEW)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()  # not even the shards were opened
    assert "3 runs beside 2; as many on both sides, or one on either" in line
    done("compare", three, "runs/seed0", *FEW)  # the hint


def test_files_that_share_episodes_in_pairs_alone_are_refused(tmp_path):
    run = ["--run", "runs/seed0"]
    both, one, three = (tmp_path / name for name in ("both", "one", "three"))
    for file, shots in ((both, "1,3"), (one, "1"), (three, "3")):
        done("evaluate", *FEW, *run, "--shot", shots, "--save", file)
    line = refusal("compare", both, f"{one},{three}")
    assert f"{both}, {one} have 60 5-way 1-shot of toy test, seed 0, {three} has 60 5-way 3" in line


def test_a_file_and_a_run_are_seeds_of_one_side(trained, tmp_path):
    done("evaluate", *FEW, "--run", "runs/seed0", "--save", tmp_path / "one")
    (cell,) = found("compare", f"{tmp_path / 'one'},runs/seed1", "otam")["cells"]
    assert cell["num_seeds"] == 2
    line = refusal("compare", f"{tmp_path / 'one'},{trained('b', train={'beta': 2.0})}", "otam")
    assert "beta 1.0 there and 2.0 here" in line


def test_methods_stand_for_runs_of_the_shards_that_files_and_flags_are_about(tmp_path):
    make_shards(Path("shards") / "longer", name="longer", classes=(6, 5, 6), seed=1)
    done(*TRAIN, "--shards", "shards/longer", "--run", "runs/longer", "--seed", 9)
    try:
        assert "run: runs/longer" in done("compare", "i2st", "otam", *FEW).stderr
        assert "run: runs/seed1" in done("compare", "i2st", "r@otam").stderr
        for words in (["evaluate"], ["compare", "i2st", "otam"]):
            shown = done(*words, *FEW, "--shards", "shards/toy").stderr
            assert "run: runs/seed1" in shown
            assert "was trained on" not in shown
    finally:
        shutil.rmtree("runs/longer")
        shutil.rmtree("shards/longer")


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
