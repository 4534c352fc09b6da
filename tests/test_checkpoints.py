import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import asdict, fields, replace
from datetime import date

import pytest
import torch
from safetensors.torch import save_file

from i2st_model.checkpoints import (
    FORMAT_VERSION,
    CheckpointInfo,
    load_checkpoint,
    save_checkpoint,
)
from i2st_model.compatibility import require_compatible
from i2st_model.config import network_config, preset
from i2st_model.network import build_network
from i2st_model.runs import (
    CHECKPOINT_NAME,
    STATE_NAME,
    find_newest_run,
    find_newest_shards,
    find_newest_unfinished,
    read_config,
    unfinished_runs,
)
from i2st_model.tensor_files import MAX_HEADER_BYTES, save_tensors
from i2st_model.training.run_folder import locked, name_latest, new_run_folder
from i2st_model.training.step_log import StepLog
from i2st_model.whole_files import write_whole
from pipeline.errors import CheckpointError, ConfigError, ResourceError

SMALL = preset("i2st", token_dim=6, grid=2, dim=8, heads=2, mask_width=4, num_instances=2)
INFO = CheckpointInfo(
    network=SMALL.to_dict(),
    train={"episodes": 3},
    fingerprint={"encoder": {"name": "e"}},
    dataset="toy",
    digest="d" * 64,
    train_classes=["clap", "jump"],
    step=5,
    val_accuracy=61.5,
    selected="val",
)


@pytest.fixture
def network():
    torch.manual_seed(1)
    return build_network(SMALL)


@pytest.fixture
def run(tmp_path, network):
    folder = tmp_path / "run"
    folder.mkdir()
    save_checkpoint(folder, network.state_dict(), INFO)
    return folder


def test_checkpoint_round_trips_bit_for_bit(run, network):
    checkpoint = load_checkpoint(run)
    assert checkpoint.info == INFO
    torch.manual_seed(2)
    other = build_network(network_config(checkpoint.info.network))
    checkpoint.load_into(other)
    for name, value in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert load_checkpoint(run / CHECKPOINT_NAME).info == INFO
    assert [path.name for path in run.iterdir()] == [CHECKPOINT_NAME]


def refused(path, match=None):
    """The one line with which a checkpoint is refused."""
    with pytest.raises(CheckpointError, match=match) as refusal:
        load_checkpoint(path)
    assert refusal.value.exit_code == 4
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def unusable(path, why):
    remedy = "an unchanged safetensors file written by i2st was needed; restore it, or train again"
    return f"{path} cannot be used: {why}; {remedy}"


NO_HEADER = "its header is not that of an i2st file"


class Canary:
    def __reduce__(self):
        return os.mkdir, (os.environ["CANARY"],)


@pytest.mark.parametrize("protocol", [0, 4])
def test_pickle_under_the_checkpoints_name_is_refused_and_not_run(tmp_path, monkeypatch, protocol):
    canary = tmp_path / "canary"
    monkeypatch.setenv("CANARY", str(canary))
    (tmp_path / CHECKPOINT_NAME).write_bytes(pickle.dumps(Canary(), protocol) * 40)
    refused(tmp_path, "cannot be used: its header")
    assert not canary.exists()


@pytest.mark.parametrize("length", [0, 1, MAX_HEADER_BYTES + 1, 2**63, 2**64 - 1])
def test_header_length_out_of_bounds_is_refused_without_reading_it(tmp_path, length):
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(length.to_bytes(8, "little") + b"{}" * 20)
    os.truncate(path, 2 * MAX_HEADER_BYTES)
    tracemalloc.start()
    message = refused(tmp_path)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    why = f"its header claims {length} bytes, at most {MAX_HEADER_BYTES}"
    assert message == unusable(path, why)
    assert most_bytes < MAX_HEADER_BYTES / 8


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", f"its header claims 0 bytes, at most {MAX_HEADER_BYTES}"),
        (b"abc", NO_HEADER),  # these three bytes are a length below the limit
        (b"\x02\0\0\0\0\0\0\0{}", NO_HEADER),
        (b"\x02\0\0\0\0\0\0\0[]", NO_HEADER),
    ],
)
def test_short_or_empty_file_is_refused(tmp_path, content, why):
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(content)
    assert refused(tmp_path) == unusable(path, why)


def with_header(values, data=b""):
    header = json.dumps(values).encode()
    return len(header).to_bytes(8, "little") + header + data


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_numbers_that_json_has_not_are_refused_under_a_seal(tmp_path, number):
    path = tmp_path / CHECKPOINT_NAME
    path.write_bytes(with_header({"__metadata__": {"i2st": f'{{"sha256": "", "x": {number}}}'}}))
    assert "cannot be used: Out of range float" in refused(tmp_path)


def test_overlapping_and_oversized_tensors_are_refused(tmp_path):
    ours = {"i2st": json.dumps({"format": "i2st-checkpoint", "format_version": FORMAT_VERSION})}
    one = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    huge = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}
    path = tmp_path / CHECKPOINT_NAME
    for tensors in ({"a": one, "b": one}, {"a": huge}):
        path.write_bytes(with_header({"__metadata__": ours, **tensors}, bytes(16)))
        # The rest of the line is safetensors' own and changes with its version.
        message = refused(tmp_path)
        assert message.startswith(f"{path} cannot be used: Error while deserializing header: ")
    # The same file is refused for its metadata alone once its tensors lie as they should.
    beside = {**one, "data_offsets": [8, 16]}
    path.write_bytes(with_header({"__metadata__": ours, "a": one, "b": beside}, bytes(16)))
    assert refused(tmp_path) == unusable(
        path, "its metadata has the keys ['format', 'format_version']"
    )


def test_every_truncation_of_a_checkpoint_is_refused(run):
    path = run / CHECKPOINT_NAME
    whole = path.read_bytes()
    header_end = 8 + int.from_bytes(whole[:8], "little")
    sizes = [*range(0, 64), *range(64, len(whole), 997), header_end, len(whole) - 1]
    for size in sizes:
        path.write_bytes(whole[:size])
        message = refused(run)
        if size == 0:
            claimed = f"its header claims 0 bytes, at most {MAX_HEADER_BYTES}"
            assert message == unusable(path, claimed)
        elif size < header_end - 7:  # its last bytes are padding
            assert message == unusable(path, NO_HEADER), size
        else:
            assert "cannot be used: Error while deserializing header: " in message, size
    path.write_bytes(whole)
    assert load_checkpoint(run).info == INFO


def test_any_flipped_bit_of_a_checkpoint_is_refused(run):
    path = run / CHECKPOINT_NAME
    whole = path.read_bytes()
    # In the weights, in a number of the metadata, and in the last byte.
    for place in (len(whole) // 2, whole.index(b"61.5"), len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="changed since it was written"):
            load_checkpoint(run)
    path.write_bytes(whole)
    assert load_checkpoint(run).info == INFO


def test_safetensors_of_other_programs_and_versions_are_refused(run, network):
    path = run / CHECKPOINT_NAME
    save_file({"a": torch.zeros(2)}, path)
    assert refused(run) == unusable(path, NO_HEADER)
    save_checkpoint(run, network.state_dict(), replace(INFO, format_version=9))
    assert refused(run) == (
        f"{path} has format 'i2st-checkpoint' version 9; i2st-checkpoint version {FORMAT_VERSION} "
        "was needed; use the i2st that wrote it, or train again"
    )
    save_tensors(path, {}, {"format": "i2st-checkpoint", "format_version": FORMAT_VERSION})
    assert refused(run) == unusable(path, "its metadata has the keys ['format', 'format_version']")


OBJECTS = ("network", "train", "fingerprint", "options", "train.encoder")
WORDS = ("dataset", "digest", "selected", "method", "version")
LISTS = ("train_classes", "train_video_hashes", "train_feature_hashes", "chosen_on")
COUNTS = ("step", "val_accuracy", "train.frames", "train.seed")


def stored(run, weights, **changes):
    """Write a checkpoint as other programs could: `save_tensors` refuses NaN, for one."""
    values = json.dumps({**asdict(INFO), **changes})
    save_file(weights.state_dict(), run / CHECKPOINT_NAME, metadata={"i2st": values})


@pytest.mark.parametrize("value", [True, 0.5, -(2**64), "a\nb", [{}], [["a"]], {"a": 1}, None])
@pytest.mark.parametrize("name", [*OBJECTS, *WORDS, *LISTS, *COUNTS])
def test_metadata_of_another_type_is_refused_in_one_line(run, network, name, value):
    whole, _, inner = name.partition(".")
    stored(run, network, **{whole: {inner: value} if inner else value})
    right = (
        (name in OBJECTS and value == {"a": 1})
        or (name in ("val_accuracy", "train.frames") and value is None)
        or (name == "val_accuracy" and value == 0.5)
    )
    if right:
        load_checkpoint(run)
    else:
        assert refused(run) == unusable(run / CHECKPOINT_NAME, f"its {name} is {value!r:.60}")


def test_every_field_of_the_metadata_is_checked():
    checked = {name for name in (*OBJECTS, *WORDS, *LISTS, *COUNTS) if "." not in name}
    assert checked | {"format", "format_version"} == {one.name for one in fields(CheckpointInfo)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train_classes": 5}, "train_classes is 5"),
        ({"train_classes": ["clap", 5]}, "train_classes is ['clap', 5]"),
        ({"train_video_hashes": [2**63]}, "train_video_hashes is [9223372036854775808]"),
        ({"val_accuracy": float("nan")}, "val_accuracy is nan"),
        ({"val_accuracy": 10**400}, "val_accuracy is 1000"),
        ({"step": -1}, "step is -1"),
        ({"selected": ["val"]}, "selected is "),
        ({"dataset": None}, "dataset is None"),
        ({"train": {"frames": 0}}, "train.frames is 0"),
    ],
)
def test_metadata_out_of_range_is_refused(run, network, changes, said):
    stored(run, network, **changes)
    assert refused(run).startswith(f"{run / CHECKPOINT_NAME} cannot be used: its {said}")


def test_weights_that_do_not_fit_the_config_are_refused(run, network):
    wider = replace(SMALL, dim=16).to_dict()
    save_checkpoint(run, network.state_dict(), replace(INFO, network=wider))
    checkpoint = load_checkpoint(run)
    other = build_network(network_config(checkpoint.info.network))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"\(8, .*there and \(16, .*and more"):
        checkpoint.load_into(other)
    for name, value in other.state_dict().items():
        assert torch.equal(before[name], value)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(run, network, value):
    weights = network.state_dict()
    weights["projection.weight"][0, 0] = value
    save_checkpoint(run, weights, INFO)
    with pytest.raises(CheckpointError, match=r"projection\.weight is not finite"):
        load_checkpoint(run).load_into(network)


def test_absent_checkpoint_says_how_to_get_one(tmp_path):
    with pytest.raises(ConfigError, match="absent; a finished run was needed"):
        load_checkpoint(tmp_path)
    (tmp_path / STATE_NAME).write_bytes(b"")
    with pytest.raises(ConfigError, match="unfinished; run `i2st train --run .* --resume`"):
        load_checkpoint(tmp_path)


SAVER = """
import sys, torch
from pathlib import Path
from i2st_model.tensor_files import save_tensors
print("ready", flush=True)
for number in range(10**6):
    save_tensors(Path(sys.argv[1]), {"a": torch.full((200_000,), float(number))}, {"n": number})
"""


def test_a_kill_while_saving_leaves_a_whole_file(tmp_path, repository):
    from i2st_model.tensor_files import load_tensors

    path = tmp_path / "x.safetensors"
    for number in range(4):
        saver = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(path)], cwd=repository, stdout=subprocess.PIPE
        )
        saver.stdout.readline()
        while not path.exists():
            time.sleep(0.001)
        time.sleep(0.02 + 0.0037 * number)
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        values, tensors = load_tensors(path)
        assert torch.equal(tensors["a"], torch.full((200_000,), float(values["n"])))


def test_write_whole_keeps_the_old_file_when_the_disk_is_full(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_whole(path, b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = "3 bytes were needed .*; make room, then run the command again$"
    with pytest.raises(ResourceError, match=message):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]


def test_a_run_folder_is_held_by_one_process_at_a_time(tmp_path):
    with locked(tmp_path / "run"):
        again = locked(tmp_path / "run")
        with pytest.raises(ConfigError, match="one training at a time.*or pass another --run"):
            again.__enter__()
        # Its holder may just be reading the shards.
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    with locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()


def test_a_file_in_place_of_a_run_folder_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    with pytest.raises(ConfigError, match=r"file is a file; a folder was needed; pass another --r"):
        locked(tmp_path / "file").__enter__()
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_a_run_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="cannot write .*pass another --run"):
        new_run_folder(tmp_path / "file", "x", today=date(2026, 3, 7))


def test_a_full_disk_around_a_run_never_hints_to_resume_the_folder_of_all_runs(
    tmp_path, monkeypatch
):
    def full(*words, **named):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(type(tmp_path), "mkdir", full)
        # Nothing was begun yet.
        with pytest.raises(ResourceError, match="make room, then run the command again$"):
            new_run_folder(tmp_path, "x", today=date(2026, 3, 7))
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_bytes(b"{}")
    (run / CHECKPOINT_NAME).write_bytes(b"")
    monkeypatch.setattr(os, "replace", full)
    # A finished run that is resumed is left as it is, and named.
    with pytest.raises(ResourceError, match=f"go on with `i2st train --run {run} --resume`$"):
        name_latest(run)


def test_a_run_that_saved_its_state_is_resumed_before_a_newer_one_that_did_not(tmp_path):
    for name, file, seconds in (("far", "state.safetensors", 100), ("new", "config.json", 200)):
        (tmp_path / name).mkdir()
        for each in {"config.json", file}:
            (tmp_path / name / each).write_bytes(b"{}")
            os.utime(tmp_path / name / each, (seconds, seconds))
    assert [run.name for run in unfinished_runs(tmp_path)] == ["far", "new"]


def test_a_run_that_finishes_while_others_look_for_unfinished_ones_is_no_error(
    tmp_path, monkeypatch
):
    run, stat = tmp_path / "run", type(tmp_path).stat
    run.mkdir()
    for name in ("config.json", STATE_NAME):
        (run / name).write_bytes(b"{}")

    def finish_after(path, **named):
        found = stat(path, **named)
        if path.name == STATE_NAME:
            path.unlink()
        return found

    monkeypatch.setattr(type(tmp_path), "stat", finish_after)
    assert unfinished_runs(tmp_path) == [run]
    assert unfinished_runs(tmp_path) == [run]  # its state has gone, before and after the look


def test_a_run_that_a_process_trains_is_not_one_to_go_on_with(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes(b"{}")
    with locked(tmp_path / "b"):
        assert [run.name for run in unfinished_runs(tmp_path)] == ["a"]
        with locked(tmp_path / "a"), pytest.raises(ConfigError, match="that no process trains"):
            find_newest_unfinished(tmp_path)
    # To look takes the lock from nobody, and the lock's file alone holds none.
    assert {run.name for run in unfinished_runs(tmp_path)} == {"a", "b"}
    with locked(tmp_path / "b"):
        pass


def test_only_a_folder_in_which_nothing_was_recorded_is_discarded(tmp_path):
    with pytest.raises(ConfigError, match="refused"), locked(tmp_path / "refused"):
        raise ConfigError("refused")
    with locked(tmp_path / "begun"):
        (tmp_path / "begun" / "config.json").write_bytes(b"{}")
    with locked(tmp_path / "removed"):
        shutil.rmtree(tmp_path / "removed")
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]


def test_newest_unfinished_run_is_found(tmp_path):
    for name, seconds in (("a", 100), ("b", 200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_bytes(b"{}")
        os.utime(tmp_path / name / "config.json", (seconds, seconds))
    assert find_newest_unfinished(tmp_path).name == "b"
    (tmp_path / "b" / CHECKPOINT_NAME).write_bytes(b"")
    assert find_newest_unfinished(tmp_path).name == "a"
    (tmp_path / "a" / CHECKPOINT_NAME).write_bytes(b"")
    with pytest.raises(ConfigError, match="no unfinished run in"):
        find_newest_unfinished(tmp_path)


def test_run_folders_are_named_by_date_and_never_shared(tmp_path):
    day = date(2026, 3, 7)
    names = [new_run_folder(tmp_path / "runs", "hmdb51", today=day).name for _ in range(3)]
    assert names == ["2026-03-07-hmdb51", "2026-03-07-hmdb51-2", "2026-03-07-hmdb51-3"]


def test_newest_run_is_the_one_whose_checkpoint_is_newest(tmp_path):
    with pytest.raises(ConfigError, match="no finished run in .*; run `i2st train`"):
        find_newest_run(tmp_path)
    (tmp_path / "c").mkdir()
    for name in ("config.json", STATE_NAME):
        (tmp_path / "c" / name).write_bytes(b"")
    with pytest.raises(ConfigError, match="c is unfinished; .*--resume"):
        find_newest_run(tmp_path)
    for name, seconds in (("b", 100), ("a", 200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / CHECKPOINT_NAME).write_bytes(b"")
        os.utime(tmp_path / name / CHECKPOINT_NAME, (seconds, seconds))
    assert find_newest_run(tmp_path).name == "a"


def test_newest_shards_are_found_below_a_root_or_at_it(tmp_path):
    with pytest.raises(ConfigError, match="no finished extraction in .*; .*run `i2st extract`"):
        find_newest_shards(tmp_path)
    for name, seconds in (("b", 300), ("a", 200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "index.json").write_bytes(b"")
        os.utime(tmp_path / name / "index.json", (seconds, seconds))
    assert find_newest_shards(tmp_path).name == "b"
    assert find_newest_shards(tmp_path / "a").name == "a"


@pytest.mark.parametrize("content", ["", "[]", '{"a": ', "[" * 100_000])
def test_damaged_run_config_is_refused(tmp_path, content):
    with pytest.raises(ConfigError, match="absent; a run was needed"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json is damaged"):
        read_config(tmp_path)


def test_log_of_a_resumed_run_is_cut_at_its_state(tmp_path):
    log = StepLog(tmp_path, after_step=None)
    for step in range(1, 6):
        log.write({"step": step})
    path = tmp_path / "log.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')
    for _ in range(2):
        log = StepLog(tmp_path, after_step=3)
        assert path.read_text() == "".join(f'{{"step": {step}}}\n' for step in (1, 2, 3))
        log.write({"step": 3, "note": "went on otherwise"})
    log.write({"step": 4})
    StepLog(tmp_path, after_step=4)
    assert len(path.read_text().splitlines()) == 5
    StepLog(tmp_path, after_step=None)
    assert path.read_text() == ""


def fingerprint(**changes):
    values = {
        "encoder": {"name": "clip", "sha256": "1"},
        "view": {"geometry": "center_crop"},
        "frames": {"count": 8, "rule": "segment_centres"},
        "decoder": {"name": "pyav", "version": "18"},
        "manifest": {"name": "hmdb51", "sha256": "2"},
    }
    return {**values, **changes}


def test_shards_of_other_features_are_refused_with_both_values(tmp_path):
    other = fingerprint(
        encoder={"name": "clip", "sha256": "9"},
        frames={"count": 16, "rule": "segment_centres"},
        view={"geometry": "full_frame"},
    )
    message = "encoder.sha256 '1' there and '9' here, .*frames.count 8 there and 16 here"
    view = "view.geometry 'center_crop' there and 'full_frame' here"
    with pytest.raises(ConfigError, match=view):
        require_compatible(fingerprint(), other, shards=tmp_path, run=tmp_path)
    with pytest.raises(ConfigError, match=message):
        require_compatible(fingerprint(), other, shards=tmp_path, run=tmp_path)


def test_shards_of_another_dataset_and_decoder_version_are_accepted(tmp_path):
    other = fingerprint(
        manifest={"name": "ucf101", "sha256": "3"}, decoder={"name": "pyav", "version": "19"}
    )
    require_compatible(fingerprint(), other, shards=tmp_path, run=tmp_path)
    decord = fingerprint(decoder={"name": "decord", "version": "18"})
    with pytest.raises(ConfigError, match="decoder 'pyav' there and 'decord' here"):
        require_compatible(fingerprint(), decord, shards=tmp_path, run=tmp_path)


def test_checkpoints_of_version_1_are_still_read(run, network):
    values = {**asdict(INFO), "format_version": 1}
    for name in ("method", "options", "train_video_hashes"):
        del values[name]
    save_tensors(run / CHECKPOINT_NAME, network.state_dict(), values)
    info = load_checkpoint(run).info
    assert (info.method, info.options, info.train_video_hashes) == ("i2st", {}, [])
    assert info.train_classes == INFO.train_classes
