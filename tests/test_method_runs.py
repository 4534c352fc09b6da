"""Which run stands for a method."""

import json
import os
from pathlib import Path

import pytest

from i2st_model.evaluating.method_runs import MethodRun, is_trained, run_labels
from i2st_model.evaluating.run_choice import (
    Content,
    choose_method_runs,
    newest_run_of,
    with_newest_runs,
)
from pipeline.errors import BackendError, ConfigError


@pytest.fixture
def root(tmp_path):
    """Finished runs a (i2st), b and d (trx), c (i2st, without a method in its config), in turn."""
    for age, (name, train) in enumerate(
        [("a", {"method": "i2st"}), ("b", {"method": "trx"}), ("c", {}), ("d", {"method": "trx"})]
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"train": train}))
        (tmp_path / name / "checkpoint.safetensors").touch()
        os.utime(tmp_path / name / "checkpoint.safetensors", (age, age))
    return tmp_path


def test_newest_run_of_each_method_is_taken(root):
    assert newest_run_of("i2st", root) == root / "c"
    assert newest_run_of("trx", root) == root / "d"
    os.utime(root / "b" / "checkpoint.safetensors", (9, 9))
    assert newest_run_of("trx", root) == root / "b"


def test_the_link_to_the_latest_run_is_no_run(root):
    (root / "latest").symlink_to("a")
    os.utime(root / "a" / "checkpoint.safetensors", (9, 9))
    assert newest_run_of("i2st", root) == root / "a"


def test_checkpoints_without_a_config_are_passed_over(root):
    (root / "e").mkdir()
    (root / "e" / "checkpoint.safetensors").touch()
    assert newest_run_of("i2st", root) == root / "c"


def test_methods_and_runs_become_entries_in_the_order_asked_for(root):
    def chosen(methods, *runs):
        found = choose_method_runs(methods, [root / run for run in runs], root=root)
        return [(one.method, one.run.name if one.run else None) for one in found]

    assert chosen(None) == [("i2st", "c")]
    assert chosen(None, "d", "b") == [("trx", "d"), ("trx", "b")]
    assert chosen(None, "d", "a") == [("trx", "d"), ("i2st", "a")]
    assert chosen(["otam", "trx", "i2st"], "b") == [("otam", None), ("trx", "b"), ("i2st", "c")]
    assert chosen(["otam", "otam"]) == [("otam", None)]
    spec = "otam:temperature=0.1"
    assert chosen(["otam", spec]) == [("otam", None), (spec, None)]
    assert MethodRun(method="otam") == choose_method_runs(["otam"], [], root=root)[0]


def test_what_cannot_be_chosen_is_refused(root, tmp_path):
    with pytest.raises(ConfigError, match="b is a run of trx, asked for: otam; .*add trx to --met"):
        choose_method_runs(["otam"], [root / "b"], root=root)
    with pytest.raises(ConfigError, match="no finished run of hyrsm in .*train --method hyrsm"):
        choose_method_runs(["hyrsm"], [], root=root)
    with pytest.raises(ConfigError, match="trx:.* has options, .*pass --method trx$"):
        choose_method_runs(["trx:width=8"], [], root=root)
    with pytest.raises(BackendError, match="unknown method 'foo'"):
        choose_method_runs(["foo"], [], root=root)
    with pytest.raises(ConfigError, match=r"config.json is absent; a run was needed"):
        choose_method_runs(None, [Path("nowhere")], root=root)


def test_a_run_of_another_method_never_stands_for_one(root):
    for name in ("a", "c"):
        (root / name / "checkpoint.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"no finished run of i2st in .*[ac] is unfinished.*--re"):
        choose_method_runs(["i2st", "otam"], [], root=root)
    (root / "d" / "checkpoint.safetensors").unlink()  # unfinished, but of trx
    for name in ("a", "c"):
        (root / name / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no finished run of i2st in \S+; .* --method i2st`"):
        newest_run_of("i2st", root)


def test_equally_old_runs_are_told_apart_by_name(root):
    for name in ("b", "d"):
        os.utime(root / name / "checkpoint.safetensors", (9, 9))
    assert newest_run_of("trx", root) == root / "d"
    (root / "d").rename(root / "aa")
    assert newest_run_of("trx", root) == root / "b"


def test_methods_with_weights_are_trained_ones():
    trained = {name: is_trained(name) for name in ("i2st", "trx", "hyrsm", "otam", "linear_probe")}
    assert [name for name, yes in trained.items() if yes] == ["i2st", "trx", "hyrsm"]


def trained_on(root, name, dataset, digest):
    path = root / name / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **content(dataset, digest)}))


def content(dataset, digest):
    return {"dataset": dataset, "digest": digest}


def test_newest_run_is_of_these_shards_else_of_their_dataset_else_of_any(root):
    assert newest_run_of("trx", root, Content(**content("toy", "1"))) == root / "d"
    trained_on(root, "b", "toy", "2")
    assert newest_run_of("trx", root, Content(**content("toy", "1"))) == root / "b"
    trained_on(root, "d", "toy", "2")  # of the same dataset and newer
    assert newest_run_of("trx", root, Content(**content("toy", "1"))) == root / "d"
    trained_on(root, "b", "toy", "1")
    assert newest_run_of("trx", root, Content(**content("toy", "1"))) == root / "b"
    assert newest_run_of("trx", root, Content(**content("other", "9"))) == root / "d"
    assert newest_run_of("trx", root) == root / "d"


def test_the_first_run_decides_of_which_shards_the_others_are(root):
    trained_on(root, "a", "toy", "1")
    trained_on(root, "b", "toy", "1")
    named = [MethodRun(method="i2st", run=root / "a"), MethodRun(method="trx")]
    found = with_newest_runs(named, root=root, content=None)
    assert [one.run.name for one in found] == ["a", "b"]
    trained_on(root, "d", "other", "2")
    other = Content(**content("other", "2"))
    found = with_newest_runs(named, root=root, content=other)
    assert [one.run.name for one in found] == ["a", "d"]
    (root / "a" / "checkpoint.safetensors").unlink()
    (root / "d" / "checkpoint.safetensors").touch()  # of all the newest, and c is of no shards
    trained_on(root, "c", "toy", "1")
    found = with_newest_runs([MethodRun(method="i2st"), named[1]], root=root, content=None)
    assert [one.run.name for one in found] == ["c", "b"]


def test_runs_of_one_name_are_told_apart_by_the_folders_above():
    def labels(*paths):
        return run_labels([MethodRun(method="i2st", run=Path(path)) for path in paths])

    assert labels("runs/a") == ["i2st"]
    assert labels("runs/a", "runs/b") == ["i2st a", "i2st b"]
    assert labels("x/a", "y/a", "y/b") == ["i2st x/a", "i2st y/a", "i2st b"]
    assert labels("x/r/a", "y/r/a") == ["i2st x/r/a", "i2st y/r/a"]
    assert labels("a", "x/a") == ["i2st a", "i2st x/a"]
    mixed = [MethodRun(method="otam"), MethodRun(method="trx", run=Path("a"))]
    assert run_labels(mixed) == ["otam", "trx"]
