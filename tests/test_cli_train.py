"""`i2st train` of other methods, from files of settings, from other runs and in two processes."""

import inspect
import json
import os
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from synthetic_shards import make_shards
from test_cli_stage_two import SETTINGS, TRAIN, i2st, refusal
from test_training_ranks import start_two

from i2st_model.checkpoints import load_checkpoint
from i2st_model.commands.train import FLAGS, train
from i2st_model.training.config import TrainConfig
from i2st_model.training.run_folder import locked, withdrawn_if_refused
from pipeline.errors import ConfigError, ResourceError


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "toy"
    make_shards(folder)
    return folder


@pytest.fixture
def here(shards, tmp_path, monkeypatch):
    """An empty folder with shards/toy."""
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "toy").symlink_to(shards)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_of(done):
    assert done.exit_code == 0, done.output
    return Path(json.loads(done.stdout)["run"])


def test_flags_that_are_settings_have_the_settings_defaults():
    flags = inspect.signature(train).parameters
    defaults = {field.name: field.default for field in fields(TrainConfig)}
    for name in FLAGS:
        assert flags[name].default == defaults[name], name


def test_a_method_trains_from_a_printed_file_and_latest_leads_to_its_run(here):
    words = ["--method", "hyrsm:heads=4", "--set", "options.dropout=0.2", "--episodes", "64"]
    printed = i2st("train", *words, "--set", "val_episodes=40", "--print-config")
    assert printed.exit_code == 0, printed.output
    assert not (here / "runs").exists()
    values = yaml.safe_load(printed.stdout)
    assert (values["method"], values["options"]) == ("hyrsm", {"dropout": 0.2, "heads": 4})
    assert set(values) == {field.name for field in fields(TrainConfig)}
    (here / "settings.yaml").write_text(printed.stdout)
    run = run_of(i2st("train", "--config", "settings.yaml", "--seed", 3, "--json"))
    assert run.name.endswith("-toy-hyrsm")
    info = load_checkpoint(run).info
    assert info.train == {**values, "seed": 3}
    assert os.readlink("runs/latest") == run.name
    again = i2st("train", "--config", run / "config.json", "--print-config")
    assert yaml.safe_load(again.stdout) == info.train
    evaluated = i2st("evaluate", "--method", "hyrsm", "--episodes", 20, "--json")
    assert evaluated.exit_code == 0, evaluated.output


def test_a_run_starts_from_another_and_latest_follows(here):
    first = run_of(i2st(*TRAIN, "--json"))
    still = ["--set", "fast_rate=0", "--set", "slow_rate=0", "--select", "last"]
    second = run_of(i2st(*TRAIN, *still, "--init-from", first, "--json"))
    assert second != first
    weights = load_checkpoint(first).weights
    for name, value in load_checkpoint(second).weights.items():
        assert value.equal(weights[name]), name
    assert os.readlink("runs/latest") == second.name
    assert "runs/nowhere is absent" in refusal(*TRAIN, "--init-from", "runs/nowhere").replace(
        "runs/nowhere/checkpoint.safetensors", "runs/nowhere"
    )


def test_wrong_settings_of_files_and_methods_are_refused_in_one_line(here):
    (here / "wrong.yaml").write_text("network: {dmi: 32}\n")
    assert "did you mean 'network.dim'" in refusal("train", "--config", "wrong.yaml")
    assert "no option 'haeds'" in refusal("train", "--method", "hyrsm", "--set", "options.haeds=4")
    assert "method otam has no weights" in refusal("train", "--method", "otam")
    assert not list((here / "runs").glob("20*"))


COMMAND = "import sys, cli; sys.argv[0] = 'i2st'; cli.main()"


def test_a_training_in_a_folder_that_is_held_leaves_it_to_its_holder(here):
    with locked(here / "begun"):
        said = refusal(*TRAIN, "--run", here / "begun")
        assert "begun is locked by PID" in said
        assert (here / "begun" / ".lock").is_file()


def test_two_processes_make_one_run_and_the_first_one_speaks(here, repository, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    words = [*TRAIN, "--select", "last", "--set", "pools_per_step=2", "--json"]
    ended = start_two(here, COMMAND, *words)
    assert [code for code, _, _ in ended] == [0, 0], ended
    run = Path(json.loads(ended[0][1])["run"])
    assert "shards: shards/toy" in ended[0][2]
    assert ended[1][1:] == ("", "")
    alone = run_of(i2st(*words))
    for name, value in load_checkpoint(alone).weights.items():
        assert value.equal(load_checkpoint(run).weights[name]), name
    # A refusal is one line, of the first process; torchrun sees that one fail.
    refused = start_two(here, COMMAND, "train", *SETTINGS, "--episodes", "64")
    assert [code for code, _, _ in refused] == [2, 0]
    assert refused[0][2].count("error: pools_per_step=1 with 2 processes") == 1
    assert refused[1][1:] == ("", "")
    assert len(list((here / "runs").glob("20*"))) == 2


ON_ONE_GPU = """
import torch
torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: 1
torch.cuda.set_device = lambda number: None
joined = torch.distributed.init_process_group
torch.distributed.init_process_group = lambda backend, **how: joined("gloo", **how)
"""


def test_more_processes_than_gpus_are_refused_in_one_line(here, repository, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    words = ["train", "--episodes", "64", "--set", "pools_per_step=2"]
    ended = start_two(here, f"{ON_ONE_GPU}{COMMAND}", *words)
    assert [code for code, _, _ in ended] == [2, 0], ended
    said = "error: device=auto gives process 1 of this machine cuda:0, of 1 GPUs; one for each"
    assert ended[0][2].count(said) == 1
    assert ended[0][2].count("error") == 1
    assert ended[1][1:] == ("", "")
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (
            ["--method", "trxx"],
            "unknown method 'trxx' (did you mean 'trx'?); trainable: hyrsm, i2st, trx (without ",
        ),
        (["--preset", "specifed"], "unknown preset 'specifed' (did you mean 'specified'?); "),
        (["--set", "network.instances=quries"], "is unknown (did you mean 'queries'?); one of "),
        (["--set", "masks=shufled"], "is unknown (did you mean 'shuffled'?); one of "),
        (["--config", "nested.yaml"], "unknown setting 'train.betta' (did you mean 'beta'?); "),
    ],
)
def test_unknown_names_are_answered_with_the_nearest_known_one(here, words, nearest):
    Path("nested.yaml").write_text("train: {betta: 1}\n")
    assert nearest in refusal("train", *words)


def test_a_run_that_is_refused_before_its_first_state_leaves_nothing(here, shards):
    damaged = here / "damaged"
    shutil.copytree(shards, damaged)
    for shard in damaged.glob("*.h5"):
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
    done = i2st(*TRAIN, "--shards", damaged)
    assert done.exit_code == 4, done.output
    assert list((here / "runs").iterdir()) == []
    (here / "kept").mkdir()
    (here / "kept" / "notes.txt").write_text("mine")
    assert i2st(*TRAIN, "--shards", damaged, "--run", here / "kept").exit_code == 4
    assert {path.name for path in (here / "kept").iterdir()} <= {".lock", "notes.txt"}
    for error, name in (
        (ConfigError("refused"), "state.safetensors"),
        (ConfigError("refused"), "fault.safetensors"),
        (ResourceError("full"), "log.jsonl"),
    ):
        run = here / type(error).__name__ / name
        run.mkdir(parents=True)
        for each in ("config.json", name):
            (run / each).write_text("{}")
        with pytest.raises(type(error)), withdrawn_if_refused(run):
            raise error
        assert sorted(path.name for path in run.iterdir()) == sorted(["config.json", name])


def test_unfinished_runs_of_other_shards_are_not_named_and_their_absent_shards_are(here, shards):
    own, other, torn = (here / "runs" / name for name in ("own", "other", "torn"))
    for run, recorded in ((own, here / "shards" / "toy"), (other, here / "gone")):
        run_of(i2st(*TRAIN, "--run", run, "--json"))
        (run / "checkpoint.safetensors").unlink()
        values = json.loads((run / "config.json").read_bytes())
        digest = values["digest"] if run == own else "0" * 64
        (run / "config.json").write_text(
            json.dumps({**values, "digest": digest, "shards": str(recorded)})
        )
    torn.mkdir()
    (torn / "config.json").write_text("{")
    notes = [line for line in i2st(*TRAIN).stderr.splitlines() if line.startswith("unfinished:")]
    assert len(notes) == 1
    assert "runs/own" in notes[0]
    line = refusal("train", "--run", other, "--resume")
    assert f"was begun with the shards {here / 'gone'}, which are absent" in line
    # Settings alone need no shards.
    assert i2st("train", "--run", other, "--resume", "--print-config").exit_code == 0


def test_shards_that_were_not_named_are_told_to_be_the_newest_of_several(here, shards):
    said = "newest of"
    assert said not in i2st(*TRAIN, "--way", "1").stderr
    shutil.copytree(shards, here / "shards" / "small")
    os.utime(here / "shards" / "small" / "index.json", (2**31, 2**31))
    for words in (TRAIN, ["sweep", "--over", "beta=0,1", "--dry-run"]):
        told = " ".join(i2st(*words).stderr.split())
        assert "shards/small is the newest of 2 extractions in shards; --shards names" in told
        assert said not in i2st(*words, "--shards", "shards/toy").stderr
