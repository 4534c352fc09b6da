"""Which run stands for a method."""

import json
import os
from pathlib import Path

import pytest

from i2st_model.evaluating.method_runs import (
    MethodRun,
    choose_method_runs,
    is_trained,
    newest_run_of,
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
