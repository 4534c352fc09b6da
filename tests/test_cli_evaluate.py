"""`i2st evaluate` with many methods and cells, `--save`, episode files, and `i2st episodes`."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_shards import FINGERPRINT, make_shards
from typed import FEW, TRAIN, done, i2st, refusal

from i2st_model.checkpoints import load_checkpoint, save_checkpoint
from i2st_model.leaks import video_hashes
from i2st_model.records.results import load_results
from i2st_model.reporting.tables import FORMS


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with shards, two finished runs of them, and shards of other kinds."""
    folder = tmp_path_factory.mktemp("place")
    make_shards(folder / "shards" / "toy", signal=1.0)
    other = {**FINGERPRINT, "encoder": {"name": "other", "sha256": "1"}}
    make_shards(folder / "other" / "seen_otherwise", signal=1.0, fingerprint=other, seed=4)
    make_shards(folder / "other" / "fewer", name="fewer", classes=(6, 5, 4))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for seed in (0, 1):
            done(*TRAIN, "--seed", seed, "--run", f"runs/seed{seed}")
    return folder


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place)


VAL = ", ".join(f"'val {number}'" for number in range(5))

# --- one table ---


def test_methods_ways_and_shots_make_one_table_of_the_single_figures():
    methods, cells = ("protonet", "bi_mhm", "i2st"), [(4, 1), (4, 3), (5, 1), (5, 3)]
    asked = ["evaluate", *FEW, "--method", ",".join(methods), "--way", "4,5", "--shot", "1,3"]
    found = json.loads(done(*asked, "--json").stdout)["evaluations"]
    assert [(one["label"], one["way"], one["shot"]) for one in found] == [
        (name, *cell) for name in methods for cell in cells
    ]
    for one in found:
        alone = ["--method", one["method"], "--way", one["way"], "--shot", one["shot"], "--json"]
        single = json.loads(done("evaluate", *FEW, *alone).stdout)
        assert single == {key: value for key, value in one.items() if key != "label"}
    shown = done(*asked)
    lines = shown.stdout.splitlines()
    for word in ("4-way 1-shot", "4-way 3-shot", "5-way 1-shot", "5-way 3-shot"):
        assert word in shown.stdout
    for number, name in enumerate(methods):
        (line,) = [line for line in lines if line.startswith(f"{name} ")]
        for one in found[4 * number : 4 * number + 4]:
            assert f"{one['accuracy']:.2f}" in line
    assert "run: runs/seed1" in shown.stderr
    assert shown.stderr.count("shards: ") == 1  # read once


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_holds_the_figures(form):
    asked = ["evaluate", *FEW, "--method", "protonet,random"]
    found = json.loads(done(*asked, "--json").stdout)["evaluations"]
    text = done(*asked, "--format", form).stdout
    for one in found:
        assert f"{one['accuracy']:.2f}"[:4] in text
        assert one["method"] in text


def test_tables_name_runs_by_what_outlives_their_folders():
    sha256 = hashlib.sha256(Path("runs/seed1/checkpoint.safetensors").read_bytes()).hexdigest()
    said = f"i2st: run seed1, seed 1, checkpoint {sha256[:12]}."
    for form, mark in (("latex", "% "), ("table", ""), ("markdown", "")):
        lines = done("evaluate", *FEW, "--method", "otam,i2st", "--format", form).stdout.split("\n")
        (line,) = [line for line in lines if "run seed1" in line]
        assert line == mark + said
        (data,) = [line for line in lines if line.startswith(f"{mark}toy test: mean accuracy")]
        assert "of 60 episodes with 1 query per class, seed 0" in data
        assert re.search(r"digest [0-9a-f]{12}\.$", data)


def test_classes_are_printed_as_methods_are():
    asked = ["evaluate", *FEW, "--way", 4]
    alone = done(*asked, "--method", "otam").stdout.splitlines()
    several = done(*asked, "--method", "otam,i2st", "--per-class").stdout.splitlines()
    assert alone[0] == "class   accuracy"
    assert several[0].split() == ["class", "otam", "4w1s", "i2st", "4w1s"]
    assert set(alone[1]) == set(several[1]) == {"-", " "}
    found = json.loads(done(*asked, "--method", "otam", "--json").stdout)["per_class"]
    shown = dict(re.fullmatch(r"(test \d) +([\d.]+)", line).groups() for line in alone[2:7])
    assert shown == {name: f"{accuracy:.1f}" for name, accuracy in found.items()}
    assert [line.split()[2] for line in several[2:7]] == list(shown.values())
    assert alone[7].startswith("otam on toy test (5 classes, 40 videos), 4-way 1-shot, 60 episodes")


def test_val_accuracies_of_a_run_that_val_has_chosen_are_said_to_be_optimistic(tmp_path):
    run = tmp_path / "chosen"
    shutil.copytree("runs/seed0", run)
    kept = load_checkpoint(run)
    save_checkpoint(run, kept.weights, replace(kept.info, selected="val"))
    said = f"chosen: optimistic on 5 of these 5 classes ({VAL}): their accuracy has chosen the"
    asked = ["evaluate", *FEW, "--run", run, "--run", "runs/seed0", "--split"]
    assert done(*asked, "val").stderr.count(said) == 1
    assert "optimistic" not in done(*asked, "test").stderr
    assert "optimistic" not in done("evaluate", *FEW, "--split", "val").stderr  # selected: last
    done("evaluate", *FEW, "--run", run, "--split", "val", "--save", tmp_path / "r")
    assert done("compare", tmp_path / "r", "otam").stderr.count(said) == 1


def test_classes_of_another_dataset_that_chose_the_weights_are_told(tmp_path):
    run = tmp_path / "chosen"
    shutil.copytree("runs/seed0", run)
    kept = load_checkpoint(run)
    chosen = replace(kept.info, selected="val", chosen_on=["Val_1", "val 3", "elsewhere"])
    save_checkpoint(run, kept.weights, chosen)
    make_shards(tmp_path / "s", name="other", seed=5)
    asked = ["evaluate", *FEW, "--run", run, "--shards", tmp_path / "s"]
    said = "chosen: optimistic on 2 of these 5 classes ('val 1', 'val 3'): their accuracy has"
    assert done(*asked, "--split", "val", "--save", tmp_path / "r").stderr.count(said) == 1
    assert done("compare", tmp_path / "r", tmp_path / "r").stderr.count(said) == 1
    assert "optimistic" not in done(*asked).stderr


def test_methods_centred_on_the_evaluated_classes_are_told(tmp_path):
    said = "optimistic on 6 of these 6 classes ('train 0', 'train 1', 'train 2', 'train 3', "
    said += "'train 4' and 1 more): the mean that is subtracted is that of their videos, too\n"
    methods = ["--method", "simpleshot,otam,protonet,simpleshot:centre=false"]
    asked = ["evaluate", *FEW, *methods, "--shards", "shards/toy", "--shot", "1,3"]
    shown = done(*asked, "--split", "train", "--save", tmp_path / "r").stderr
    assert shown.count("optimistic") == shown.count(f"simpleshot, otam: {said}") == 1
    assert "optimistic" not in done(*asked).stderr
    done("episodes", "make", tmp_path / "e", *FEW, "--shards", "shards/toy", "--split", "train")
    kept = ["--episode-file", tmp_path / "e", "--method", "otam", "--shards", "shards/toy"]
    assert f"otam: {said}" in done("evaluate", *kept).stderr
    kept = ["compare", tmp_path / "r@protonet", "otam", "--shards", "shards/toy"]
    assert f"otam: {said}" in done(*kept).stderr


def test_a_run_that_several_methods_read_is_named_once():
    shown = done("evaluate", *FEW, "--method", "i2st,i2st:head=probe", "--run", "runs/seed0").stderr
    assert shown.splitlines().count("run: runs/seed0") == 1


def test_a_shot_that_is_typed_twice_is_one_in_the_settings_too():
    for words in (["evaluate", "--method", "otam"], ["compare", "otam", "bi_mhm"]):
        shown = done(*words, *FEW, "--shot", "1,3,1", "--way", "4,4").stderr.split()
        assert {"shot=1,3", "way=4"} <= set(shown)


def test_runs_in_a_list_are_refused_and_the_hint_works():
    line = refusal("evaluate", *FEW, "--run", "runs/seed0,runs/seed1")
    said, hint = line.split("; repeat the flag: ")
    assert said.endswith("--run runs/seed0,runs/seed1 is absent; the folder of one run was needed")
    assert hint == "--run runs/seed0 --run runs/seed1"
    done("evaluate", *FEW, *hint.split())


def test_several_runs_of_one_method_stand_in_rows_of_their_own():
    runs = ["--run", "runs/seed0", "--run", "runs/seed1"]
    found = json.loads(done("evaluate", *FEW, *runs, "--json").stdout)["evaluations"]
    assert [one["label"] for one in found] == ["i2st seed0", "i2st seed1"]
    assert [one["checkpoint"] for one in found] == [
        f"runs/seed{seed}/checkpoint.safetensors" for seed in (0, 1)
    ]


def test_shards_that_a_run_was_not_trained_on_are_said():
    said = "runs/seed1 was trained on toy, digest "
    assert said not in done("evaluate", *FEW).stderr
    make_shards(Path("other") / "longer", name="longer", classes=(6, 5, 6), seed=1)
    found = done("evaluate", *FEW, "--shards", "other/longer")
    assert said in found.stderr
    assert "these shards are of longer, digest" in found.stderr


def test_methods_without_training_are_shown_the_shards_of_the_newest_run():
    make_shards(Path("shards") / "newer", name="newer")
    try:
        found = json.loads(done("evaluate", *FEW, "--method", "protonet", "--json").stdout)
    finally:
        shutil.rmtree(Path("shards") / "newer")
    assert found["dataset"] == "toy"


def test_a_run_is_of_its_own_method():
    message = "runs/seed0 is a run of i2st, asked for: otam.*add i2st to --method"
    assert re.search(message, refusal("evaluate", "--run", "runs/seed0", "--method", "otam"))
    found = done("evaluate", *FEW, "--run", "runs/seed0", "--method", "otam,i2st", "--json")
    assert len(json.loads(found.stdout)["evaluations"]) == 2  # the hint works


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--way", "5,x"], "--way '5,x' is no list of whole numbers; .*; write them like 1,3,5"),
        (["--shot", ""], "--shot '' is no list of whole numbers"),
        (["--shot", "-1"], "--shot '-1' is no list"),
        (["--method", "otam,,i2st"], "--method 'otam,,i2st' holds an empty name"),
        (["--method", "i2st:dim=[1,2]"], "has options, .*; pass --method i2st$"),
        (["--method", "otam:x=1"], "otam .*has no option"),
        (["--method", "otam,foo"], "unknown method 'foo'; known: bi_mhm"),
        (["--method", "hyrsm"], "no finished run of hyrsm in runs; .* `i2st train --method hyrsm`"),
        (["--format", "html"], "format='html' is unknown; known: table"),
        (["--precision", "half"], "precision='half' is unknown; one of float32, float64"),
        (["--frames", 0], "frames=0 per clip, .* 1 to 4 is needed"),
        (["--save", "nowhere/r"], "nowhere is no folder; one was needed for r"),
        (["--save", "shards"], "a new file was needed; pass another path as --save"),
        (["--episode-file", "e", "--seed", 1], "--seed beside --episode-file, for which it says"),
        (["--episode-file", "none"], "none is absent; a file written by i2st was needed"),
    ],
)
def test_evaluate_refuses_in_one_line(words, message):
    assert re.search(message, refusal("evaluate", *words))


def test_options_behind_a_name_give_it_a_row_of_its_own():
    methods = ["otam", "otam:temperature=0.1:shots=after_matching"]
    asked = ["evaluate", *FEW, "--shot", 3, "--method", ",".join(methods), "--json"]
    found = json.loads(done(*asked).stdout)["evaluations"]
    assert [one["label"] for one in found] == methods


def test_precision_of_64_bits_gives_the_same_accuracy():
    asked = ["evaluate", *FEW, "--method", "bi_mhm", "--json"]
    narrow = json.loads(done(*asked).stdout)
    wide = json.loads(done(*asked, "--precision", "float64").stdout)
    assert wide.pop("precision") == "float64"
    assert narrow.pop("precision") == "float32"
    assert wide == narrow


# --- files ---


def test_saved_results_are_the_printed_figures_and_the_same_bytes_twice(tmp_path):
    asked = ["evaluate", *FEW, "--method", "protonet,i2st", "--shot", "1,3", "--json"]
    shas = []
    for name in ("a", "b"):
        result = done(*asked, "--save", tmp_path / name)
        shas += re.findall(r"sha256 ([0-9a-f]{64})", result.stderr)
    assert len(set(shas)) == 1
    printed = json.loads(result.stdout)["evaluations"]
    read = load_results(tmp_path / "a")
    for one, said in zip(read, printed, strict=True):
        assert (one.made_by.method, one.episodes.shot) == (said["method"], said["shot"])
        assert 100 * one.per_episode.mean() == pytest.approx(said["accuracy"])
    assert (read[2].made_by.run, read[2].made_by.train_seed) == ("seed1", 1)
    assert len(read[2].made_by.checkpoint_sha256) == 64


def test_predictions_are_the_same_bytes_on_one_thread_and_on_four(tmp_path):
    before = torch.get_num_threads()
    asked = ["evaluate", "--method", "i2st,otam,simpleshot,linear_probe", "--shot", "1,3", *FEW]
    try:
        for threads in (1, 4):
            done(*asked, "--threads", threads, "--save", tmp_path / str(threads))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    digests = {hashlib.sha256((tmp_path / one).read_bytes()).hexdigest() for one in ("1", "4")}
    assert len(digests) == 1


@pytest.fixture
def kept(tmp_path):
    path = tmp_path / "episodes"
    asked = ["--shot", 2, "--queries", 3, "--seed", 7, *FEW]
    made = json.loads(done("episodes", "make", path, *asked, "--json").stdout)
    assert made["size_bytes"] == path.stat().st_size
    return path, made, asked


def test_replayed_episodes_give_the_predictions_of_the_drawn_ones(kept, tmp_path):
    path, _, asked = kept
    methods = ["evaluate", "--method", "bi_mhm,i2st"]
    done(*methods, *asked, "--save", tmp_path / "drawn")
    replayed = done(*methods, "--episode-file", path, "--save", tmp_path / "replayed")
    assert (tmp_path / "drawn").read_bytes() == (tmp_path / "replayed").read_bytes()
    assert "60 5-way 2-shot, seed 7" in replayed.stderr


def test_episodes_are_shown(kept):
    path, made, _ = kept
    shown = json.loads(done("episodes", "show", path, "--json").stdout)
    assert shown == made
    expected = {"dataset": "toy", "split": "test", "way": 5, "shot": 2, "queries": 3, "seed": 7}
    assert {key: shown[key] for key in expected} == expected
    assert (shown["episodes"], shown["classes"], shown["videos"]) == (60, 5, 40)
    one = json.loads(done("episodes", "show", path, "--number", 59, "--json").stdout)
    uses = [clip["use"] for clip in one["clips"]]
    assert uses == (["support"] * 2 + ["query"] * 3) * 5
    assert all(clip["video"].startswith(clip["class"] + "/") for clip in one["clips"])
    assert len({clip["class"] for clip in one["clips"]}) == 5
    text = done("episodes", "show", path, "--number", 59).stdout
    assert all(clip["video"] in text for clip in one["clips"])
    assert "0 to 59 is needed" in refusal("episodes", "show", path, "--number", 60)


def test_episodes_are_verified_against_shards(kept):
    path, _, _ = kept
    assert "fits shards/toy: 60 episodes" in done("episodes", "verify", path).stdout
    other = ["episodes", "verify", path, "--shards"]
    differing = i2st(*other, "other/fewer")
    assert differing.exit_code == 4
    for clause in ("dataset 'toy' there and 'fewer' here", "8 of 40 videos", "not in split 'test'"):
        assert clause in differing.stdout
    elsewhere = i2st(*other, "other/seen_otherwise", "--json")
    assert elsewhere.exit_code == 4
    assert [one.split()[0] for one in json.loads(elsewhere.stdout)["differences"]] == ["digest"]
    assert "accepted: digest" in done(*other, "other/seen_otherwise", "--other-features").stderr


def test_episodes_that_do_not_fit_are_refused_and_the_hints_work(kept, tmp_path):
    path, _, _ = kept
    asked = ["evaluate", "--method", "otam", "--episode-file", path, "--shards"]
    line = refusal(*asked, "other/fewer", code=4)
    assert re.search(r"does not fit other/fewer: dataset .*; 8 of 40 videos .*; .*digest", line)
    assert line.endswith("or make episodes of these with `i2st episodes make`")
    assert "--other-features where the same" in refusal(*asked, "other/seen_otherwise", code=4)
    done(*asked, "other/seen_otherwise", "--other-features")  # the hint
    done("episodes", "make", tmp_path / "e", "--shards", "other/fewer", "--way", 4)  # the other


def test_damaged_files_are_refused_by_every_command_that_reads_them(kept):
    path, _, _ = kept
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for words in (
        ["episodes", "show", path],
        ["episodes", "verify", path],
        ["evaluate", "--method", "otam", "--episode-file", path],
    ):
        assert "its seal does not match" in refusal(*words, code=4)


def test_episodes_make_overwrites_nothing(kept):
    path, _, _ = kept
    assert "is there already" in refusal("episodes", "make", path)


# --- leaks ---


@pytest.fixture
def leaky(tmp_path):
    """A run that trained on a test class and on two test videos of another."""
    run = tmp_path / "leaky"
    run.mkdir()
    (run / "config.json").write_bytes(Path("runs/seed0/config.json").read_bytes())
    kept = load_checkpoint(Path("runs/seed0"))
    hashes = video_hashes(["test 0/00", "test 0/01", "test 3/05", "elsewhere/07"]).tolist()
    values = {name: getattr(kept.info, name) for name in kept.info.__dataclass_fields__}
    values |= {"train_classes": ["Test_3", "other"], "train_video_hashes": hashes}
    save_checkpoint(run, kept.weights, type(kept.info)(**values))
    return run


def test_what_training_saw_is_refused_and_dropped_on_demand(leaky, tmp_path):
    asked = ["evaluate", "--run", leaky, *FEW, "--way", 4]
    line = refusal(*asked)
    assert "1 of 5 evaluated classes were trained on by" in line
    assert "'test 3', and 3 of 40 evaluated videos ('test 0/00' and 2 more)" in line
    assert line.endswith("leave them out with --drop-seen")
    dropped = done(*asked, "--drop-seen", "--method", "i2st,otam", "--save", tmp_path / "r")
    assert "left out, as training saw them: 1 class ('test 3'), 3 videos" in dropped.stderr
    for one in load_results(tmp_path / "r"):
        assert one.episodes.class_names == ("test 0", "test 1", "test 2", "test 4")
        assert len(one.episodes.video_ids) == 30
        assert not {"test 0/00", "test 0/01"} & set(one.episodes.video_ids)


def test_replayed_episodes_that_training_saw_are_refused_with_a_hint_that_works(leaky, tmp_path):
    done("episodes", "make", tmp_path / "e", *FEW)
    asked = ["evaluate", "--run", leaky, "--way", 4, *FEW]
    line = refusal("evaluate", "--run", leaky, "--episode-file", tmp_path / "e")
    assert "1 of 5 evaluated classes were trained on" in line
    hint = "; choose another run, or draw episodes without them: --drop-seen in place of the file"
    assert line.endswith(hint)
    done(*asked, "--drop-seen")
    done("evaluate", "--method", "otam", *FEW, "--save", tmp_path / "r")
    assert refusal("compare", leaky, tmp_path / "r").endswith(hint)
    done("compare", leaky, "otam", "--way", 4, *FEW, "--drop-seen")


def test_classes_left_with_too_few_videos_are_named(leaky):
    # Of test 0's 8 videos two were trained on.
    asked = ["evaluate", "--run", leaky, "--drop-seen", "--way", 3, "--shot", 6, *FEW]
    assert "'test 0' of split 'test' of toy without what training saw has 6" in refusal(*asked)
    found = done(*asked, "--drop-small-classes", "--json")
    assert "left out, as too few videos are there: 'test 0'\n" in found.stderr
    values = json.loads(found.stdout)
    assert values["dropped_classes"] == ["test 0"]
    assert list(values["per_class"]) == ["test 1", "test 2", "test 4"]
    assert json.loads(done("evaluate", *FEW, "--json").stdout)["dropped_classes"] == []


def test_copies_of_train_videos_are_refused_by_content_and_dropped_on_demand(tmp_path):
    copies = {"test 0/02": "train 1/03", "test 4/07": "train 0/00", "val 1/00": "train 2/01"}
    make_shards(tmp_path / "s", name="doubled", copies=copies)
    done(*TRAIN, "--shards", tmp_path / "s", "--run", tmp_path / "run")
    asked = ["evaluate", "--run", tmp_path / "run", *FEW]
    result = i2st(*asked)
    assert result.exit_code == 4
    assert (
        "error: 2 of 40 evaluated videos equal, byte for byte, videos that "
        f"{tmp_path}/run was "
        "trained on: 'test 0/02' is 'train 1/03', 'test 4/07' is 'train 0/00'; few-shot accuracy "
        "needs unseen videos; choose another split or run, or leave them out with --drop-seen\n"
    ) in result.stderr
    done("evaluate", "--shards", tmp_path / "s", "--method", "protonet", *FEW)  # not trained
    dropped = done(*asked, "--drop-seen", "--save", tmp_path / "r")
    assert "training saw them: 2 videos ('test 0/02', 'test 4/07')" in dropped.stderr
    (kept,) = load_results(tmp_path / "r")
    assert len(kept.episodes.video_ids) == 38

    done("episodes", "make", tmp_path / "e", "--shards", tmp_path / "s", *FEW)
    replayed = i2st("evaluate", "--run", tmp_path / "run", "--episode-file", tmp_path / "e")
    assert replayed.exit_code == 4
    assert "draw episodes without them: --drop-seen in place of the file" in replayed.stderr


def test_copies_in_another_dataset_are_refused_and_dropped_on_demand(tmp_path):
    copies = {"test 0/02": "train 1/03"}
    make_shards(tmp_path / "twin", name="twin", signal=1.0, copies=copies)  # toy's videos
    asked = ["evaluate", "--run", "runs/seed0", *FEW, "--shards"]
    result = i2st(*asked, tmp_path / "twin")
    assert result.exit_code == 4
    said = "1 of 40 evaluated videos equal, byte for byte, videos that runs/seed0 was trained on: "
    assert said + "'test 0/02'; few-shot accuracy needs" in result.stderr
    dropped = done(*asked, tmp_path / "twin", "--drop-seen")
    assert "left out, as training saw them: 1 video ('test 0/02')" in dropped.stderr
    make_shards(tmp_path / "far", name="far", copies=copies, seed=1)
    done(*asked, tmp_path / "far")


def test_clean_runs_are_not_refused():
    found = json.loads(done("evaluate", *FEW, "--drop-seen", "--json").stdout)
    assert found["num_videos"] == 40
    assert np.isfinite(found["accuracy"])
