"""The commands of stage one as a user types them: flags, output, exit codes, and hints that run."""

import csv
import dataclasses
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import cli
from pipeline.commands.console import show_table
from pipeline.commands.extract import extract
from pipeline.errors import ConfigError, ResourceError
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.report import ExtractReport
from pipeline.manifests.sources import manifest_from_folder

CLASSES = ("clap", "jump", "wave")
NUM_FRAMES = 4
QUICK = ["--encoder", "efficientnet-lite0", "--frames", "2"]
PLAIN = [*QUICK, "--segmenter", "none"]

INFO_KEYS = {"digest", "videos", "failures", "format_version", "fingerprint"}


def run(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def fails(code, *words):
    """Run a command that must fail in one line, and return that line."""
    result = run(*words)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert lines == result.stderr.splitlines()[-1:], result.stderr
    return lines[0]


@pytest.mark.parametrize("name", ["partition", "cores", "gpus", "memory", "walltime"])
def test_extract_refuses_flags_of_slurm_jobs_without_slurm(name):
    line = fails(2, "extract", "--dataset", "hmdb51", f"--slurm-{name}", "1")
    assert f"--slurm-{name} without --slurm would work on this machine" in line


def works(*words):
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result


def result_of(*words):
    return json.loads(works(*words, "--json").stdout)


def test_tables_show_brackets_of_names_as_they_are(capsys):
    show_table([("Putting [something] on :dog: [/b]", 1)], ("class", "videos"))
    assert "Putting [something] on :dog: [/b]       1" in capsys.readouterr().out


def make_clip(folder, number=0):
    """A clip as a folder of frames, each a gradient of its own."""
    folder.mkdir(parents=True)
    ramp = np.arange(48, dtype=np.uint8)
    for frame in range(NUM_FRAMES):
        picture = np.stack([ramp * 4 + frame, ramp * 2, ramp + 9 * number])
        Image.fromarray(np.tile(picture.T[None], (32, 1, 1))).save(folder / f"{frame}.png")


def make_clips(folder):
    for name in CLASSES:
        for number in range(2):
            make_clip(folder / name / f"clip_{number}", number)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder with three classes of clips in ``mine`` and in HMDB51's layout."""
    monkeypatch.chdir(tmp_path)
    make_clips(tmp_path / "mine")
    for name in ("clap", "golf", "pour"):
        make_clip(tmp_path / "data" / "hmdb51" / name / f"film_{name}_f_cm_np1_fr_goo_0")
    return tmp_path


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Shards of six clips and one failure; tests that change them copy them."""
    root = tmp_path_factory.mktemp("extracted")
    make_clips(root / "mine")
    (root / "mine" / "clap" / "broken.avi").write_bytes(b"no video")
    words = ["extract", "--videos", root / "mine", "--out", root / "shards", *PLAIN]
    result = run(*words, "--shard-videos", "4", "--json")
    assert result.exit_code == 3, result.output
    return root


def test_defaults_on_the_command_line_are_those_of_the_config():
    renamed = {"decode_timeout": "decode_timeout_seconds"}
    unreachable, made_of_others = {"decode_children", "max_pixels"}, {"views", "slurm"}
    fields = {field.name: field.default for field in dataclasses.fields(ExtractConfig)}
    compared = set()
    for name, parameter in inspect.signature(extract).parameters.items():
        field = renamed.get(name, name)
        if field in made_of_others:
            continue
        if field in fields and fields[field] is not dataclasses.MISSING:
            assert parameter.default == fields[field], name
            compared.add(field)
    needed = {name for name, default in fields.items() if default is not dataclasses.MISSING}
    assert needed - compared == unreachable | made_of_others


def test_extract_prints_settings_on_stderr_and_one_result_on_stdout(here):
    result = works("extract", "--videos", "mine", *PLAIN, "--json")
    values = json.loads(result.stdout)
    assert values["out"] == "shards/mine"
    assert (values["videos"], values["new"], values["failures"]) == (6, 6, 0)
    assert "encoder=efficientnet-lite0" in result.stderr
    assert "min_decoded_ratio=0.95" in result.stderr
    assert "split_seed=0" in result.stderr
    again = result_of("extract", "--videos", "mine", *PLAIN)
    assert (again["new"], again["digest"]) == (0, values["digest"])
    assert values["digest"] in works("info", "shards/mine").stdout


@pytest.mark.parametrize(
    "words",
    [["--encoder", "efficientnet"], ["--segmenter", "sam_clap:x"], ["--device", "cuda:99"]],
)
def test_a_mistyped_model_is_refused_before_videos_are_looked_for(here, monkeypatch, words):
    def search(**named):
        raise AssertionError("videos were looked for")

    monkeypatch.setattr("pipeline.datasets.open_dataset", search)
    assert words[1].partition(":")[0] in fails(2, "extract", "--dataset", "hmdb51", *words)
    with pytest.raises(AssertionError):
        works("extract", "--dataset", "hmdb51", "--encoder", "timm:any", "--segmenter", "none")


def test_a_mistyped_encoder_is_refused_without_torch(here, repository):
    program = (
        "import sys\n"
        "from pipeline.encoders import known_encoders, require_encoder\n"
        "known = known_encoders()\n"
        "require_encoder('timm:any')\n"
        "assert not {'torch', 'numpy', 'timm'} & set(sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository)}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_extract_says_which_classes_a_draw_put_where(here):
    words = ["extract", "--videos", "mine", *PLAIN, "--dry-run", "--split-seed", "2"]
    said = " ".join(works(*words).stderr.split())
    manifest = manifest_from_folder(here / "mine", seed=2)
    listed = "; ".join(f"{split}: {name}" for split, (name,) in manifest.classes.items())
    assert f"drawn with --split-seed 2: train 1 / val 1 / test 1 ({listed})" in said
    assert "1 test class; episodes need 2 and more" in said
    # What it advises is taken, and then nothing is drawn.
    shutil.copytree(here / "mine" / CLASSES[0], here / "mine" / "fourth")
    (here / "splits.yaml").write_text(
        f"train: [{CLASSES[0]}]\nval: []\ntest: [{CLASSES[1]}, {CLASSES[2]}, fourth]\n"
    )
    given = works(*words[:-2], "--split-file", "splits.yaml").stderr
    assert "drawn" not in given
    assert "test class" not in given


def test_extract_limit_takes_classes_in_turn(here):
    works("extract", "--videos", "mine", *PLAIN, "--limit", "3")
    index = (here / "shards" / "mine" / "index.json").read_text()
    assert [f'"{name}/clip_0"' in index for name in CLASSES] == [True] * 3
    assert "clip_1" not in index


def table(folder, *, absent=False):
    """A table of the clips of ``mine``, by paths below it."""
    path = folder / "clips.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class", "split", "group"))
        for name, split in zip(CLASSES, ("train", "val", "test"), strict=True):
            for number in range(2):
                writer.writerow((f"{name}/clip_{number}", name, split, f"film{number}"))
        if absent:
            writer.writerow(("clap/gone", "clap", "train", "film9"))
    return path


def test_extract_takes_a_table_and_a_split_file(here):
    from pipeline.shards.index import ShardIndex

    works("extract", "--table", table(here), "--videos", "mine", *PLAIN, "--out", "a")
    (here / "split.yaml").write_text("train: [clap]\nval: [jump]\ntest: [wave]\n")
    works("extract", "--videos", "mine", "--split-file", "split.yaml", *PLAIN, "--out", "b")
    one, other = (ShardIndex.load(here / name) for name in "ab")
    assert [v.group for v in one.videos] == ["film0", "film1"] * 3
    splits = [("clap", "train"), ("jump", "val"), ("wave", "test")]
    assert sorted({(v.class_name, v.split) for v in one.videos}) == splits
    assert sorted({(v.class_name, v.split) for v in other.videos}) == splits


def test_extract_of_a_table_skips_what_is_absent_and_refuses_when_all_is(here):
    path = table(here, absent=True)
    result = run("extract", "--table", path, "--videos", "mine", *PLAIN)
    assert result.exit_code == 3
    assert "skipped clap/gone: missing: " in result.stderr
    line = fails(2, "extract", "--table", path, *PLAIN, "--out", "other")
    assert "name their folder with --videos" in line
    assert not (here / "other").exists()


def test_extract_check_decoder_compares_with_decord(here, monkeypatch):
    pytest.importorskip("decord")
    from pipeline import extract

    compare, compared = extract.compare_decoders, []

    def spy(paths, *rest, **options):
        compared.extend(paths)
        return compare(paths, *rest, **options)

    monkeypatch.setattr(extract, "compare_decoders", spy)
    words = ["extract", "--videos", "mine", *PLAIN, "--check-decoder", "2"]
    said = works(*words).stderr.splitlines()
    assert len(set(compared)) == 2
    assert said.count("decoders pyav and decord give the same frames of 2 videos") == 1
    monkeypatch.setattr(extract, "DECODERS", ("decord", "pyav"))
    said = works(*words, "--decoder", "decord", "--out", "other").stderr.splitlines()
    assert said.count("decoders decord and pyav give the same frames of 2 videos") == 1


def test_a_skipped_video_gives_3_and_is_tried_again_when_asked(here):
    broken = here / "mine" / "jump" / "clip_2"
    broken.mkdir()
    (broken / "0.png").write_bytes(b"no picture")
    words = ["extract", "--videos", "mine", *PLAIN]
    first = run(*words)
    assert first.exit_code == 3
    assert "skipped jump/clip_2: undecodable: " in first.stderr
    shutil.rmtree(broken)
    make_clip(broken)
    assert run(*words).exit_code == 3
    assert "with --retry-failed" in first.stderr
    assert result_of(*words, "--retry-failed")["videos"] == 7


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--geometry", "round"], "'round'; known: center_crop, full_frame"),
        (["--device", "gpu"], "unknown device 'gpu'; known: auto, cpu, cuda, cuda:N; pass one of"),
        (["--device", "cuda:99"], "'cuda:99' is not on this .*; needed: .*; pass --device auto"),
        (["--decoder", "vlc"], "'vlc'; known: decord, pyav"),
        (["--frame-rule", "all"], "'all'; known: segment_centres"),
        (["--segmenter", "seem"], "'seem'; known: .*precomputed"),
        (["--segmenter", "center_prior", "--prompt-mode", "all"], "'all'; known: nouns"),
        (["--encoder", "resnet"], "'resnet'; known: efficientnet-lite0"),
        (["--encoder", "efficientnet-lite0", "--grid", "5"], "grid 5 .*one of 1, 7"),
        (["--weights", "gone.pth"], "gone.pth is absent; needed: .*; check the path"),
        (["--limit", "0"], "limit=0 .*at least 1"),
        (["--min-decoded-ratio", "2"], "=2.0 .*must lie in 0..1; pass e.g. 0.95"),
        (["--decode-timeout", "0"], "=0.0 .*above 0; pass e.g. 60"),
        (
            ["--segmenter", "center_prior", "--prompts", "gone.yaml"],
            "gone.yaml is absent; .*; pass another path",
        ),
        (["--split-file", "gone.yaml"], "gone.yaml is absent; .*; pass another path"),
        (["--edition", "cmn"], "cmn of no dataset; .*; add --dataset NAME"),
        (["--segmenter", "none:foo"], "'none' has no model, 'foo' .*; pass `--segmenter none`"),
        (["--segmenter", "center_prior:a"], "'center_prior' has no model, 'a' .*; pass `--seg"),
        (["--segmenter", "precomputed:a"], "'precomputed' has no model, 'a' .*; pass `--segm"),
        (["--masks", "mine"], "--mask-files mine beside --segmenter none, .*or drop --mask-files"),
        (["--segmenter", "precomputed"], "got no folder; .*; give `--mask-files DIR`"),
        (
            ["--segmenter", "precomputed", "--mask-files", "gone"],
            "gone is absent; .*`--mask-files D",
        ),
    ],
)
def test_a_setting_that_is_not_allowed_is_refused_in_one_line(here, flags, message):
    line = fails(2, "extract", "--videos", "mine", *PLAIN, *flags)
    assert re.search(message, line), line
    assert not (here / "shards" / "mine" / "index.json").exists()


@pytest.mark.parametrize(
    ("flags", "idle", "beside"),
    [
        (["--store", "frames", "--encoder", "timm:resnet50"], "--encoder", "--store frames"),
        (["--store", "frames", "--weights", "w.pth"], "--weights", "--store frames"),
        (["--store", "frames", "--grid", "7"], "--grid", "--store frames"),
        (["--store", "frames", "--geometry", "full_frame"], "--geometry", "--store frames"),
        # Its own default is as idle as any other value.
        (["--frame-side", "256"], "--frame-side", "--store features"),
        (["--segmenter", "none", "--prompts", "own.yaml"], "--prompts", "--segmenter none"),
        (["--segmenter", "none", "--prompt-mode", "nouns"], "--prompt-mode", "--segmenter none"),
        (["--data-root", "data"], "--data-root", "--videos"),
        (["--split-file", "s.yaml", "--split-seed", "1"], "--split-seed", "splits that are given"),
        (["--dry-run", "--check-decoder", "2"], "--check-decoder", "--dry-run"),
    ],
)
def test_extract_refuses_a_flag_that_says_nothing_beside_the_others(here, flags, idle, beside):
    line = fails(2, "extract", "--videos", "mine", *flags)
    assert line == (
        f"error: {idle} beside {beside}, for which it says nothing; needed: flags of one kind; "
        "drop it"
    )
    assert not (here / "shards").exists()


def test_extract_works_without_the_flag_that_said_nothing(here):
    works("extract", "--videos", "mine", "--store", "frames", "--frames", "2", *PLAIN[-2:])
    assert (
        result_of("extract", "--videos", "mine", *PLAIN, "--dry-run", "--out", "b")["videos"] == 6
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "pass --dataset NAME .*--videos DIR .*--table FILE"),
        (["--dataset", "hmdb15"], r"did you mean 'hmdb51'\?.*`i2st extract --videos DIR`"),
        (["--dataset", "ucf101"], "data/ucf101' is absent; .*; put the videos there or pass"),
        (["--dataset", "hmdb51", "--table", "a.csv"], "hmdb51 and --table a.csv; .*; drop one"),
        (["--dataset", "hmdb51", "--split-file", "a"], "--split-file a .*; drop it"),
        (["--videos", "mine/clap"], "clips of 0 classes; .* so 3; add folders"),
        (["--videos", "gone"], "'gone' is absent; <class>/<clip> is needed"),
    ],
)
def test_videos_that_are_not_there_are_refused_in_one_line(here, words, message):
    assert re.search(message, fails(2, "extract", *words, *PLAIN))


def test_without_weights_each_way_out_that_is_named_works(here, monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *names: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    words = ["extract", "--dataset", "hmdb51", "--frames", "2"]
    no_clip = fails(2, *words)
    assert "--encoder efficientnet-lite0" in no_clip
    assert "--weights FILE" in no_clip
    no_sam = fails(2, *words, "--encoder", "efficientnet-lite0")
    assert "`--segmenter precomputed --mask-files DIR`" in no_sam
    assert "`--segmenter none`" in no_sam
    masks = here / "masks" / "clap" / "film_clap_f_cm_np1_fr_goo_0.npz"
    masks.parent.mkdir(parents=True)
    bits = np.packbits(np.ones((NUM_FRAMES, 32 * 48), bool), axis=1)
    np.savez(masks, bits=bits, height=32, width=48)
    given = ["--segmenter", "precomputed", "--mask-files", "masks"]
    video = here / "data" / "hmdb51" / "clap" / masks.stem
    shutil.copytree(video, video.with_name("film_clap_f_cm_np1_fr_goo_1"))
    works(*words, "--encoder", "efficientnet-lite0", *given)
    told = result_of("info", "shards/hmdb51")
    counts = (told["masks"], told["train_videos"], told["train_videos_with_masks"])
    assert counts == (True, 2, 1)
    assert re.search("masks +1 of 2 train videos\n", works("info", "shards/hmdb51").stdout)
    works(*words, "--encoder", "efficientnet-lite0", "--segmenter", "none", "--out", "other")


def test_note_about_missing_classes_names_a_check_that_runs(here):
    result = works("extract", "--dataset", "hmdb51", *PLAIN)
    note = next(line for line in result.stderr.splitlines() if "have no video" in line)
    assert note.startswith("48 of 51 classes have no video in data/hmdb51 (")
    (hint,) = re.findall("`i2st manifest check (.*?)`", note)
    text, checked = checked_as(3, *shlex.split(hint))
    assert (checked["num_present"], checked["complete"]) == (3, False)


def test_other_settings_in_a_folder_are_refused_and_another_folder_works(here):
    words = ["extract", "--videos", "mine", *PLAIN]
    works(*words)
    line = fails(2, *words, "--frames", "3")
    assert "frames.count 2 there and 3 here" in line
    assert "pass another --out" in line
    works(*words, "--frames", "3", "--out", "other")


def test_info_has_the_promised_keys_and_tells_why_videos_failed(extracted):
    values = result_of("info", extracted / "shards")
    assert set(values) >= INFO_KEYS
    assert (values["videos"], values["format_version"]) == (6, 1)
    (failure,) = values["failures"]
    assert (failure["video_id"], failure["reason"]) == ("clap/broken", "undecodable")
    assert values["fingerprint"]["encoder"]["name"] == "efficientnet-lite0"
    text = works("info", extracted / "shards").stdout
    assert re.search(r"failures +1\n", text)
    assert re.search(r"tokens +49 x 1280 per frame\n.*size_bytes +\d+ \([\d.]+ MiB\)\n", text, re.S)
    assert "skipped clap/broken: undecodable: " in text


WITH_A_PATH = (
    "info, verify, show, replay, train --shards, sweep frames --shards, train --resume --run, "
    "evaluate --method otam --shards, evaluate --run, episodes make new --shards, episodes show, "
    "episodes verify, extract --videos, extract --table, manifest check --dataset hmdb51, "
    "prompts show --table, masks score --videos mine --truth, train --config, compare otam"
)


@pytest.mark.parametrize("words", WITH_A_PATH.split(", "))
def test_a_path_that_leads_nowhere_gives_2_and_says_that_it_is_absent(here, words):
    assert re.search(r"\bfar/gone\b.* is absent", fails(2, *f"{words} far/gone".split()))


@pytest.mark.parametrize("words", ["info", "train --shards"])
def test_shards_that_have_lost_their_index_give_4(extracted, tmp_path, words):
    shutil.copytree(extracted / "shards", tmp_path / "shards")
    (tmp_path / "shards" / "index.json").unlink()
    assert "index.json is absent" in fails(4, *words.split(), tmp_path / "shards")
    result = run("verify", tmp_path / "shards")
    assert result.exit_code == 4
    assert "index.json is absent" in result.stdout


def test_verify_finds_one_changed_byte_and_its_hint_mends_it(extracted, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(extracted / "shards", shards)
    assert result_of("verify", shards) == {"path": str(shards), "problems": []}
    digest = result_of("info", shards)["digest"]
    damaged = shards / "shard-00001.h5"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    result = run("verify", shards, "--json")
    assert result.exit_code == 4
    (problem,) = json.loads(result.stdout)["problems"]
    assert problem.startswith(str(damaged))
    assert problem.endswith("delete it and run `i2st extract` again")
    damaged.unlink()
    assert run("verify", shards).exit_code == 4
    again = run("extract", "--videos", extracted / "mine", "--out", shards, *PLAIN)
    assert again.exit_code == 3
    works("verify", shards)
    assert result_of("info", shards)["digest"] == digest


def report(**changes):
    values = {
        "num_videos": 2,
        "num_done": 1,
        "num_new": 1,
        "num_segmented": 0,
        "num_without_masks": 0,
        "failures": (),
        "digest": None,
        "signal_number": None,
        "seconds": 1.0,
    }
    return ExtractReport(**{**values, **changes})


@pytest.mark.parametrize(("signal_number", "code"), [(2, 130), (15, 143)])
def test_a_signal_shows_in_the_exit_code(here, monkeypatch, signal_number, code):
    stopped = report(signal_number=signal_number)
    monkeypatch.setattr("pipeline.extract.extract", lambda *given, **options: stopped)
    result = run("extract", "--videos", "mine", *PLAIN)
    assert result.exit_code == code
    assert "the same command goes on from there" in result.stderr


@pytest.mark.parametrize(("without", "says_more"), [(3, False), (7, True)])
def test_extract_says_how_many_of_the_segmented_videos_have_no_mask(
    here, monkeypatch, without, says_more
):
    done = report(digest="d", num_segmented=7, num_without_masks=without)
    monkeypatch.setattr("pipeline.extract.extract", lambda *given, **options: done)
    errors = run("extract", "--videos", "mine", *PLAIN).stderr
    assert f"{without} of 7 train videos of this run have no mask" in errors
    assert ("check the segmenter, or the names of the mask files" in errors) is says_more


def raise_fault(fault):
    def refuse(*given, **options):
        raise fault

    return refuse


def test_a_full_disk_gives_5(here, monkeypatch):
    monkeypatch.setattr("pipeline.extract.extract", raise_fault(ResourceError("no room")))
    assert fails(5, "extract", "--videos", "mine", *PLAIN) == "error: no room"


def test_a_fault_is_printed_without_what_a_terminal_would_obey(here, monkeypatch):
    fault = ConfigError("bad \x1b[31mname\n; needed: a good one")
    monkeypatch.setattr("pipeline.extract.extract", raise_fault(fault))
    line = fails(2, "extract", "--videos", "mine", *PLAIN)
    assert line == r"error: bad \x1b[31mname ; needed: a good one"


def test_debug_keeps_the_traceback():
    result = run("--debug", "extract")
    assert isinstance(result.exception, ConfigError)


def test_a_flag_that_does_not_exist_gives_2():
    assert run("extract", "--epochs", "3").exit_code == 2
    assert run("unpack").exit_code == 2


def test_manifest_list_and_show_tell_sizes_and_sources():
    rows = {row["name"]: row for row in result_of("manifest", "list")}
    assert rows["hmdb51"]["num_videos"] == {"train": 4280, "val": 1194, "test": 1292}
    assert all(name in works("manifest", "list").stdout for name in rows)
    shown = result_of("manifest", "show", "kinetics100", "--edition", "hyrsm")
    assert shown["name"] == "kinetics100-hyrsm"
    text = works("manifest", "show", "ssv2-small").stdout
    assert "num_videos     train 6400, val 1200, test 2400" in text
    assert re.search(r"train list: https://\S+\n  sha256 [0-9a-f]{64}", text)
    assert "did you mean 'ucf101'?" in fails(2, "manifest", "show", "ucf10")


def checked_as(code, *words):
    """Text and JSON of a check that ends with a code."""
    text, found = run("manifest", "check", *words), run("manifest", "check", *words, "--json")
    assert (text.exit_code, found.exit_code) == (code, code), text.output
    return text.stdout, json.loads(found.stdout)


def test_manifest_check_tells_what_is_there_missing_and_extra(here):
    make_clip(here / "data" / "hmdb51" / "sleeping" / "a")
    text, checked = checked_as(3, "data/hmdb51")
    classes = {one["class_name"]: one for one in checked["classes"]}
    assert (classes["golf"]["num_present"], classes["golf"]["num_missing"]) == (1, 104)
    assert (classes["chew"]["num_present"], classes["chew"]["num_missing"]) == (0, 109)
    assert checked["extra_folders"] == ["sleeping"]
    assert "train: 1 of 4280 videos, 1 of 31 classes" in text
    assert "extra folder: sleeping" in text
    assert text.endswith("data/hmdb51: incomplete\n")


def test_manifest_check_asks_which_dataset_a_folder_is(here):
    line = fails(2, "manifest", "check", "mine")
    assert "pass --dataset with one of " in line
    assert "--table FILE" in line
    checked_as(3, "mine", "--dataset", "hmdb51")
    text, checked = checked_as(3, "mine", "--table", table(here, absent=True))
    assert "absent, of the list: 1 videos (clap/gone)" in text
    assert checked["missing_videos"] == ["clap/gone"]
    assert checked_as(0, "mine", "--table", table(here))[0].endswith("mine: complete\n")
    assert "absent" in fails(2, "manifest", "check", "gone", "--dataset", "hmdb51")


def test_manifest_import_reads_a_file_beside_videos_that_lie_elsewhere(split_lists, here):
    source = split_lists / "original" / "ssv2_small_val.hyrsm.txt"
    words = ["manifest", "import", "ssv2-small", "--from", source, "--videos", "far/away"]
    assert "add --split train, val or test" in fails(2, *words)
    (done,) = result_of(*words, "--split", "val")
    assert (done["num_videos"], done["path"]) == (1200, "far/away/lists/ssv2-small-val.tsv")
    refused = fails(2, *words, "--split", "train")
    assert re.search(r"has 1200 lines and sha256 \w+; .* 6400 lines .*; download https://", refused)
    (here / "file").write_text("")
    blocked = fails(2, *words, "--split", "val", "--videos", "file")
    assert "cannot write file/lists/" in blocked
    line = fails(2, "manifest", "check", "far/away", "--dataset", "ssv2-small")
    assert "run `i2st manifest import ssv2-small --videos far/away`" in line
    assert "run `i2st extract`" in fails(2, "manifest", "import", "hmdb51")


def test_prompts_show_tells_their_source(here):
    sets = {one["key"]: one for one in result_of("prompts", "show", "hmdb51")}
    assert len(sets) == 51
    assert sets["golf"]["source"] == "table"
    (here / "own.yaml").write_text("golf: [flag]\ngolf/film_golf_f_cm_np1_fr_goo_0: [tee]\n")
    words = ["prompts", "show", "hmdb51", "--prompts", "own.yaml"]
    own = {one["key"]: one for one in result_of(*words)}
    assert (own["golf"]["objects"], own["golf"]["source"]) == (["flag"], "yaml")
    assert re.search(r"golf +person +flag +yaml", works(*words).stdout)
    (single,) = result_of(*words, "--video", "golf/film_golf_f_cm_np1_fr_goo_0")
    assert (single["objects"], single["source"]) == (["tee"], "yaml")
    (raw,) = result_of(*words, "--video", "golf/x", "--prompt-mode", "raw_label")
    assert (raw["key"], raw["actor"], raw["objects"]) == ("golf/x", ["golf"], [])
    line = fails(2, "prompts", "show", "hmdb51", "--prompt-mode", "all")
    assert "known: nouns, raw_label" in line
    assert "manifest list" in fails(2, "prompts", "show")
    works("manifest", "list")


def test_prompts_show_reads_a_folder_of_ones_own(here):
    sets = {one["key"]: one for one in result_of("prompts", "show", "--videos", "mine")}
    assert sorted(sets) == list(CLASSES)
    assert sets["wave"]["source"] == "parser"


def test_prompts_show_reads_placeholders_of_one_video(here, split_lists):
    root = here / "data" / "ssv2"
    for split in ("train", "val", "test"):
        source = split_lists / "original" / f"ssv2_small_{split}.hyrsm.txt"
        works("manifest", "import", "ssv2-small", "--from", source, "--split", split)
    listed = (root / "lists" / "ssv2-small-train.tsv").read_text().splitlines()[0]
    class_name, video_id = listed.split("\t")
    entry = {"id": video_id, "template": class_name, "placeholders": ["a red cup"]}
    (root / "train.json").write_text(json.dumps([entry]))
    (one,) = result_of("prompts", "show", "ssv2-small", "--video", video_id)
    assert (one["key"], one["objects"], one["source"]) == (video_id, ["red cup"], "placeholders")
    assert "--video ID shows one's" in works("prompts", "show", "ssv2-small").stderr


def test_masks_score_prints_the_segmenter_beside_its_controls(here):
    write_truth(here / "truth")
    words = ["masks", "score", "--videos", "mine", "--truth", "truth"]
    scores = result_of(*words, "--segmenter", "precomputed", "--mask-files", "truth")
    assert result_of(*words, "--segmenter", "precomputed", "--masks", "truth") == scores
    means = {row["masks"]: row for row in scores["rows"] if row["class"] is None}
    assert means["precomputed"]["iou"] == 1
    assert means["whole_frame"]["iou"] == 0.5
    text = works(*words, "--segmenter", "center_prior", "--per-class", "--limit", "1").stdout
    # One source video: no interval.
    assert re.search(r"whole_frame +8  0\.500  - +0\.500   0\.500 ", text)
    classes = text.split("IoU by class")[1].splitlines()
    assert classes[0].split() == ["center_prior", "+/-", "whole_frame", "centre_ellipse"]
    (name, own, interval, whole, ellipse) = classes[2].split()
    assert (name, interval, whole, own) == (train_class(here), "-", "0.500", ellipse)
    assert "pass e.g. center_prior" in fails(2, *words, "--segmenter", "none")
    (here / "other" / "golf").mkdir(parents=True)
    for fault in ("holds no mask file", "holds masks of none of"):
        assert fault in fails(2, *words[:-1], "other", "--segmenter", "center_prior")
        shutil.copy(here / "truth" / "clap" / "clip_0.npz", here / "other" / "golf")
    broken = here / "truth" / train_class(here) / "clip_0.npz"
    broken.write_bytes(b"no archive")
    result = run(*words, "--segmenter", "center_prior")
    assert result.exit_code == 3
    assert f"skipped {train_class(here)}/clip_0: masks: " in result.stderr


def train_class(folder):
    (name, *_) = manifest_from_folder(folder / "mine", seed=0).classes["train"]
    return name


def write_truth(folder):
    """True masks of every clip of ``mine``: the left half of each frame."""
    masks = np.zeros((NUM_FRAMES, 32, 48), bool)
    masks[..., :24] = True
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for number in range(2):
            bits = np.packbits(masks.reshape(NUM_FRAMES, -1), axis=1)
            path = folder / name / f"clip_{number}.npz"
            np.savez_compressed(path, bits=bits, height=32, width=48)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """Shards of six clips, masks of the left half in the train classes, and the clips."""
    root = tmp_path_factory.mktemp("masked")
    make_clips(root / "mine")
    write_truth(root / "truth")
    words = ["extract", "--videos", root / "mine", "--out", root / "shards", *QUICK]
    works(*words, "--segmenter", "precomputed", "--masks", root / "truth")
    return root


def test_show_writes_a_sheet_of_shards_with_their_masks(masked, here):
    words = ["show", masked / "shards", "--videos", masked / "mine"]
    told = result_of(*words, "--limit", "2")
    assert told["out"] == "masks-shards.png"
    name = train_class(masked)
    assert [clip["video_id"] for clip in told["clips"]] == [f"{name}/clip_0", f"{name}/clip_1"]
    (noun, *_) = told["clips"][0]["nouns"]
    assert (noun["noun"], noun["found"], noun["score"]) == ("person", 2, 1.0)
    assert works(*words, "--out", "plain.png", "--no-masks").stdout.strip() == "plain.png"
    painted, plain = (np.asarray(Image.open(file)) for file in ("masks-shards.png", "plain.png"))
    assert painted.shape[1:] == plain.shape[1:]
    other = next(one for one in CLASSES if one != name)
    (clip,) = result_of(*words, "--video", f"{other}/clip_1")["clips"]
    assert (clip["video_id"], clip["masks"]) == (f"{other}/clip_1", False)
    assert (
        "1 of 1 videos shown are outside train ("
        in works(*words, "--video", f"{other}/clip_1").stderr
    )
    assert "have no masks" not in works(*words, "--video", f"{other}/clip_1", "--no-masks").stderr
    line = fails(2, *words, "--video", f"{other}/clip_9")
    assert f"holds no video '{other}/clip_9'; needed: one of its 6 ids, such as 'clap/cl" in line


def test_show_names_pictures_after_what_they_show_and_replaces_none(masked, here):
    words = ["show", masked / "shards", "--videos", masked / "mine", "--no-masks"]
    of_one = [*words, "--video", f"{train_class(masked)}/clip_0"]
    kept = here / "masks-shards.png"
    kept.write_text("another picture")
    written = [works(*asked).stdout.strip() for asked in (words, words, of_one, of_one)]
    name = f"masks-shards-{train_class(masked)}-clip_0"
    assert written == ["masks-shards-2.png", "masks-shards-3.png", f"{name}.png", f"{name}-2.png"]
    assert kept.read_text() == "another picture"
    works(*words, "--out", kept)
    assert Image.open(kept).format == "PNG"


def test_show_skips_videos_that_are_gone_or_others_than_were_extracted(masked, here):
    name = train_class(masked)
    shutil.copytree(masked / "mine", here / "moved")
    shutil.rmtree(here / "moved" / name / "clip_0")
    (here / "moved" / name / "clip_1" / "0.png").unlink()
    other = next(one for one in CLASSES if one != name)
    words = ["show", masked / "shards", "--videos", "moved"]
    result = run(*words, "--video", f"{name}/clip_0", "--video", f"{other}/clip_0")
    assert result.exit_code == 3
    assert f"skipped {name}/clip_0: missing: no such video in moved" in result.stderr
    result = run(*words, "--video", f"{name}/clip_1")
    assert result.exit_code == 2
    assert f"skipped {name}/clip_1: other_frames: decodes to frames [0, 2]" in result.stderr
    assert "0 clips to show" in result.stderr


def test_show_says_where_prompts_are_not_those_of_the_masks(masked, here):
    (here / "own.yaml").write_text(f"{train_class(masked)}: [flag]\n")
    words = ["show", masked / "shards", "--videos", masked / "mine"]
    assert "other prompts" not in works(*words).stderr
    assert "other prompts than those shown" in works(*words, "--prompts", "own.yaml").stderr


def test_show_segments_a_video(here):
    words = ["show", "mine/jump/clip_0", "--segmenter", "center_prior", "--frames", "3"]
    told = result_of(*words, "--prompt", "rope", "--prompt", "mat")
    assert told["out"] == "masks-clip_0.png"
    (clip,) = told["clips"]
    assert (clip["class"], clip["prompts"], clip["frames"]) == ("jump", "yaml", [0, 2, 3])
    found = [(noun["noun"], noun["found"]) for noun in clip["nouns"]]
    assert found == [("person", 3), ("rope", 0), ("mat", 0)]
    (clip,) = result_of(*words, "--class", "golf", "--dataset", "hmdb51", "--actor", "golfer")[
        "clips"
    ]
    assert [noun["noun"] for noun in clip["nouns"]] == ["golfer", "golf club", "golf ball"]
    assert clip["prompts"] == "table"
    four = [word for noun in "abcd" for word in ("--prompt", noun)]
    assert "--prompt has 4 nouns; at most 3 fit" in fails(2, *words, *four)
    assert "--actor" in fails(2, *words, "--actor", "")
    write_truth(here / "truth")
    hint = fails(2, *words[:2], "--segmenter", "precomputed")
    assert "give `--mask-files DIR`, or `--no-masks`" in hint
    works(*words[:2], "--segmenter", "precomputed", "--mask-files", "truth")
    works(*words[:2], "--no-masks")


def test_show_refuses_flags_of_the_other_kind_and_what_is_no_video(masked, here):
    line = fails(2, "show", "mine/jump/clip_0", "--limit", "3")
    assert "--limit beside a video" in line
    line = fails(2, "show", masked / "shards", "--segmenter", "center_prior")
    assert "--segmenter beside shards" in line
    assert "is absent" in fails(2, "show", "gone.avi", "--segmenter", "center_prior")
    assert "holds 0 images" in fails(2, "show", "mine", "--segmenter", "center_prior")
    line = fails(2, "show", "mine/jump/clip_0", "--no-masks", "--out", "gone/a.png")
    assert "cannot write the picture 'gone/a.png' (No such file or directory)" in line
    (here / "unfinished").mkdir()
    shutil.copy(masked / "shards" / "shard-00000.h5", here / "unfinished")
    assert "run `i2st extract` to the end" in fails(4, "show", "unfinished")
