"""Runs that stop, and runs that go on: what is kept, replayed, refused or started from."""

import hashlib
import json
import multiprocessing
import os
import random
import re
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synthetic_shards import make_shards
from test_checkpoints import INFO
from test_training import SMALL, open_store
from typer.testing import CliRunner

from i2st_model.checkpoints import load_checkpoint, save_checkpoint
from i2st_model.copied_videos import feature_hashes
from i2st_model.runs import CHECKPOINT_NAME, CONFIG_NAME, FAULT_NAME
from i2st_model.training import pool_losses
from i2st_model.training import step as training_step
from i2st_model.training.finite import NotFiniteError
from i2st_model.training.keeper import Keeper
from i2st_model.training.replay import replay, watched
from i2st_model.training.run import train
from i2st_model.training.run_folder import name_latest
from pipeline.errors import CheckpointError, ConfigError, I2STError, ResourceError


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "toy"
    make_shards(folder, signal=2.0)
    return folder


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "finished"
    return train(SMALL, open_store(shards), run)


def stop_at(step):
    def stop(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return stop


# --- numbers that are not finite ---


@pytest.fixture
def poisoned(shards, tmp_path):
    """A copy of the shards in which one train video is not finite, and a run that met it."""
    store = open_store(shards)
    honest, bad = store.reader.tokens, store.rows_of(["train 2"])[4]

    def tokens(rows, views=None):
        values = honest(rows, views).copy()
        values[np.isin(rows, bad)] = float("nan")
        return values

    store.reader.tokens = tokens
    config = replace(SMALL, stem_tokens=16 * 4, select="last")  # the stem is fitted to few videos
    with pytest.raises(I2STError, match="loss is nan in its term episode, mask at step"):
        train(config, store, tmp_path / "run")
    return config, store, tmp_path / "run"


def test_replay_repeats_the_step_and_names_terms_modules_and_gradients(poisoned):
    config, store, run = poisoned
    found = replay(config, store, run)
    assert found.reproduced
    assert found.bad_terms == ("loss", "episode", "mask")
    assert found.bad_modules[:2] == ("channel_dropout", "projection")
    assert "projection.weight" in found.bad_gradients
    stopped = found.step
    assert found.pools == (stopped - 1,)
    assert found.episodes == (64 * (stopped - 1), 64 * stopped - 1)
    # A resumed run stops there again, with the same words.
    with pytest.raises(I2STError, match=f"at step {stopped} "):
        train(config, store, run, resume=True)


def test_replay_shows_that_a_fault_has_gone(shards, tmp_path, monkeypatch):
    real, calls = pool_losses.episode_loss, []

    def fails_once(logits, labels):
        calls.append(1)
        return real(logits, labels) * (float("inf") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(pool_losses, "episode_loss", fails_once)
    with pytest.raises(I2STError, match="loss is inf in its term episode at step 3"):
        train(SMALL, open_store(shards), tmp_path / "run")
    found = replay(SMALL, open_store(shards), tmp_path / "run")
    assert (found.step, found.reproduced, found.bad_modules) == (3, False, ())
    expected = train(SMALL, open_store(shards), tmp_path / "other")
    third = expected.run_folder / "log.jsonl"
    loss = json.loads(third.read_text().splitlines()[3])["loss"]
    assert found.terms["loss"] == [loss]  # the very same step


def test_gradients_that_are_not_finite_stop_the_run_and_are_named(shards, tmp_path, monkeypatch):
    real = pool_losses.episode_loss

    def steep(logits, labels):
        # Its value is finite where its slope is not.
        return real(logits, labels) + (logits.mean() * 0).abs().sqrt()

    monkeypatch.setattr(pool_losses, "episode_loss", steep)
    with pytest.raises(I2STError, match=r"gradient norm of \S+ and others is nan at step 1 "):
        train(SMALL, open_store(shards), tmp_path / "run")
    found = replay(SMALL, open_store(shards), tmp_path / "run")
    assert found.bad_terms == ()
    assert "projection.weight" in found.bad_gradients


def test_replay_reproduces_a_gradient_too_long_for_its_norm(shards, tmp_path, monkeypatch):
    real = pool_losses.episode_loss

    def steep(logits, labels):
        # Finite slopes whose squares are not.
        some = logits.square().sum()
        return real(logits, labels) + (some - some.detach()) * 1e25

    monkeypatch.setattr(pool_losses, "episode_loss", steep)
    with pytest.raises(NotFiniteError, match="gradient norm is inf at step 1 "):
        train(SMALL, open_store(shards), tmp_path / "run")
    found = replay(SMALL, open_store(shards), tmp_path / "run")
    assert (found.bad_terms, found.bad_modules, found.bad_gradients) == ((), (), ())
    assert found.gradient_norm == float("inf")
    assert found.reproduced


@pytest.mark.parametrize("select", ["last", "val"])
def test_a_last_update_that_overflows_is_no_finished_run(shards, tmp_path, monkeypatch, select):
    run, real = tmp_path / "run", Keeper.after_step

    def overflow(keeper, step, result):
        if step == keeper.num_steps:
            keeper.best.val_accuracy = -1.0 if select == "val" else None  # the last is chosen
            keeper.learner.network.get_parameter("head.mix.weight").data[0, 0] = float("inf")
        real(keeper, step, result)

    monkeypatch.setattr(Keeper, "after_step", overflow)
    config = replace(SMALL, select=select, episodes=64 * 3)
    with pytest.raises(
        NotFiniteError, match=r"weights head.mix.weight are not finite after step 3 "
    ):
        train(config, open_store(shards), run)
    assert not (run / CHECKPOINT_NAME).exists()
    # What led there stays.
    assert (run / "state.safetensors").is_file()


def test_a_fault_is_forgotten_once_the_run_is_past_it(shards, tmp_path, monkeypatch):
    real, calls, run = pool_losses.episode_loss, [], tmp_path / "run"

    def fails_in_fourth(logits, labels):
        calls.append(1)
        return real(logits, labels) * (float("inf") if len(calls) == 4 else 1.0)

    monkeypatch.setattr(pool_losses, "episode_loss", fails_in_fourth)
    with pytest.raises(I2STError, match="at step 4 "):
        train(SMALL, open_store(shards), run)
    left = (run / FAULT_NAME).read_bytes()
    # States are saved after steps 2 and 4; until then the fault may come again.
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, open_store(shards), run, resume=True, on_progress=stop_at(3))
    assert (run / FAULT_NAME).is_file()
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, open_store(shards), run, resume=True, on_progress=stop_at(5))
    assert not (run / FAULT_NAME).exists()
    (run / FAULT_NAME).write_bytes(left)
    train(SMALL, open_store(shards), run, resume=True)
    assert not (run / FAULT_NAME).exists()


def test_only_gradients_that_are_not_finite_are_named(shards, tmp_path, monkeypatch):
    real = training_step.backward_pools

    def spoil(config, learner, *batches, **named):
        terms = real(config, learner, *batches, **named)
        dict(learner.network.named_parameters())["head.mix.weight"].grad[0, 0] = float("nan")
        return terms

    monkeypatch.setattr(training_step, "backward_pools", spoil)
    with pytest.raises(NotFiniteError, match=r"gradient norm of head.mix.weight is nan") as fault:
        train(SMALL, open_store(shards), tmp_path / "run")
    assert fault.value.culprits == ("head.mix.weight",)


def test_replay_on_other_shards_is_refused(poisoned, tmp_path):
    config, _, run = poisoned
    make_shards(tmp_path / "others", signal=1.0)
    with pytest.raises(ConfigError, match="was trained on shards of digest .*pass --shards"):
        replay(config, open_store(tmp_path / "others"), run)


def test_replay_names_modules_with_several_outputs():
    class Pair(torch.nn.Module):
        def forward(self, value):
            return value, value.log()

    network = torch.nn.Sequential(Pair())
    with watched(network) as bad:
        network(torch.tensor([1.0]))
        assert bad == []
        network(torch.tensor([-1.0]))
    assert bad == ["0", ""]


def test_replay_of_a_run_that_did_not_stop_is_refused(shards, finished):
    with pytest.raises(ConfigError, match=r"fault.safetensors is absent; a run that a loss"):
        replay(SMALL, open_store(shards), finished.run_folder)


def test_replay_command_prints_what_is_not_finite(shards, poisoned, monkeypatch):
    import cli
    from i2st_model.commands import replay as command

    _, store, run = poisoned
    monkeypatch.setattr(command, "open_features", lambda *words, **named: store)
    result = CliRunner().invoke(cli.app, ["replay", str(run)])
    assert result.exit_code == 0, result.output
    assert "terms          loss, episode, mask" in result.stdout
    assert "modules        channel_dropout, projection" in result.stdout
    values = json.loads(CliRunner().invoke(cli.app, ["replay", str(run), "--json"]).stdout)
    assert values["reproduced"] is True
    assert values["gradient_norm"] == "nan"
    assert values["pools"] == [values["step"] - 1]
    refused = CliRunner().invoke(cli.app, ["replay", str(run), "--device", "cuda:99"])
    assert refused.exit_code == 2
    assert "device 'cuda:99' is not on this machine" in refused.stderr


# --- what decides the bits ---


def test_resume_on_other_threads_is_refused_unless_allowed(shards, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, open_store(shards), run, on_progress=stop_at(3))
    recorded = json.loads((run / CONFIG_NAME).read_text())
    assert (recorded["threads"], recorded["device"]) == (1, "cpu")
    recorded["threads"] = 2
    (run / CONFIG_NAME).write_text(json.dumps(recorded))
    message = "was begun otherwise: threads 2 there and 1 here.*--threads 2 --device cpu, or pass"
    with pytest.raises(ConfigError, match=message):
        train(SMALL, open_store(shards), run, resume=True)
    report = train(SMALL, open_store(shards), run, resume=True, allow_nondeterministic=True)
    assert report.resumed_at == 2
    said = "went on after step 2 with threads 2 there and 1 here; the last bits may differ"
    assert said in report.notes
    assert {"step": 2, "note": said} in map(
        json.loads, (run / "log.jsonl").read_text().split("\n")[:-1]
    )


def test_resume_by_another_torch_is_refused_unless_allowed(shards, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, open_store(shards), run, on_progress=stop_at(3))
    recorded = json.loads((run / CONFIG_NAME).read_text())
    assert recorded["torch"] == torch.__version__
    (run / CONFIG_NAME).write_text(json.dumps({**recorded, "torch": "1.0"}))
    message = f"torch '1.0' there and '{torch.__version__}' here.*; install torch 1.0 and pass --th"
    with pytest.raises(ConfigError, match=re.escape(message).replace(r"\.\*", ".*")):
        train(SMALL, open_store(shards), run, resume=True)
    train(SMALL, open_store(shards), run, resume=True, allow_nondeterministic=True)


def test_resume_takes_the_device_of_its_own_hint(shards, finished, tmp_path):
    run, auto = tmp_path / "run", replace(SMALL, device="auto")
    with pytest.raises(KeyboardInterrupt):
        train(auto, open_store(shards), run, on_progress=stop_at(3))
    recorded = json.loads((run / CONFIG_NAME).read_text())
    kind = recorded["device"]
    report = train(replace(auto, device=kind), open_store(shards), run, resume=True)
    assert report.resumed_at == 2
    # One that was begun on a GPU may be ended elsewhere, as the message says.
    other = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, open_store(shards), other, on_progress=stop_at(3))
    recorded = json.loads((other / CONFIG_NAME).read_text())
    recorded["device"] = recorded["train"]["device"] = "cuda"
    (other / CONFIG_NAME).write_text(json.dumps(recorded))
    with pytest.raises(ConfigError, match=r"device 'cuda' there and 'cpu' here.*--device cuda, or"):
        train(SMALL, open_store(shards), other, resume=True)
    train(SMALL, open_store(shards), other, resume=True, allow_nondeterministic=True)


def test_resume_under_another_encoder_is_refused(shards, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, open_store(shards), run, on_progress=stop_at(3))
    store = open_store(shards)
    recorded = json.loads((run / CONFIG_NAME).read_text())
    assert recorded["encoder"] == store.index.fingerprint["encoder"]
    # As of frames, whose digest does not tell which weights see them.
    other = {**store.index.fingerprint, "encoder": {"name": "other"}}
    store.index = replace(store.index, fingerprint=other)
    with pytest.raises(ConfigError, match=r"is another run: encoder\S* .*'other' here"):
        train(SMALL, store, run, resume=True)


def test_resume_on_other_shards_of_the_same_dataset_is_refused(shards, finished, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, open_store(shards), run, on_progress=stop_at(3))
    make_shards(tmp_path / "others", signal=2.0, seed=1)
    here, other = open_store(shards).index, open_store(tmp_path / "others")
    assert other.index.dataset_name == here.dataset_name
    assert other.index.fingerprint == here.fingerprint
    digests = [f"{index.digest[:12]}..." for index in (here, other.index)]
    message = "is another run: digest {} there and {} here; ".format(*digests)
    for folder in (run, finished.run_folder):
        with pytest.raises(ConfigError, match=re.escape(message)):
            train(SMALL, other, folder, resume=True)
    assert train(SMALL, open_store(shards), run, resume=True).resumed_at == 2


def test_runs_of_versions_with_fewer_settings_go_on(shards, finished, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, open_store(shards), run, on_progress=stop_at(3))
    recorded = json.loads((run / CONFIG_NAME).read_text())
    for name in ("method", "options", "pools_per_step", "precision", "compile", "init_from"):
        del recorded["train"][name]
    del recorded["init_sha256"], recorded["encoder"]
    (run / CONFIG_NAME).write_text(json.dumps(recorded))
    train(SMALL, open_store(shards), run, resume=True)
    whole = (finished.run_folder / CHECKPOINT_NAME).read_bytes()
    assert (run / CHECKPOINT_NAME).read_bytes() == whole


# --- weights of another run ---


def test_a_run_starts_from_the_weights_of_another(shards, finished, tmp_path):
    still = replace(
        SMALL,
        init_from=str(finished.run_folder),
        seed=9,
        episodes=64,
        select="last",
        fast_rate=0.0,
        slow_rate=0.0,
    )
    report = train(still, open_store(shards), tmp_path / "run")
    before = load_checkpoint(finished.run_folder).weights
    for name, value in load_checkpoint(report.run_folder).weights.items():
        assert torch.equal(value, before[name]), name


def test_what_the_other_run_saw_stays_seen(finished, shards, tmp_path):
    store = open_store(shards)
    asked = replace(SMALL, init_from=str(finished.run_folder), episodes=64)
    other = replace(asked, classes=tuple(f"val {n}" for n in range(5)), masks="off")
    other = replace(other, select="last")
    info = load_checkpoint(train(other, store, tmp_path / "run").run_folder).info
    assert set(info.train_classes) == {f"val {n}" for n in range(5)} | {
        f"train {n}" for n in range(6)
    }
    assert len(info.train_video_hashes) == (5 + 6) * 8
    assert info.train_feature_hashes == feature_hashes(
        video for video in store.index.videos if video.split != "test"
    )
    assert info.chosen_on == [f"val {n}" for n in range(5)]
    assert load_checkpoint(finished.run_folder).info.chosen_on == info.chosen_on
    with pytest.raises(ConfigError, match="'train 0' is in the train and in the val classes"):
        train(
            replace(other, select="val", val_classes=("train 0", "train 1")), store, tmp_path / "v"
        )


def test_weights_that_do_not_fit_are_refused(finished, shards, tmp_path):
    asked = replace(SMALL, init_from=str(finished.run_folder))
    wider = replace(asked, network={**SMALL.network, "dim": 32})
    with pytest.raises(CheckpointError, match=r"does not fit: .*\(16,.*there and \(32,"):
        train(wider, open_store(shards), tmp_path / "wider")
    with pytest.raises(ConfigError, match="is a run of i2st; one of hyrsm was needed"):
        train(replace(asked, method="hyrsm", network={}), open_store(shards), tmp_path / "hyrsm")
    with pytest.raises(ConfigError, match="nowhere"):
        train(replace(asked, init_from="nowhere"), open_store(shards), tmp_path / "nowhere")


def test_a_run_goes_on_only_from_the_weights_that_it_started_from(shards, finished, tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    kept = (finished.run_folder / CHECKPOINT_NAME).read_bytes()
    (first / CHECKPOINT_NAME).write_bytes(kept)
    asked, run = replace(SMALL, init_from=str(first), seed=3), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(asked, open_store(shards), run, on_progress=stop_at(3))
    recorded = json.loads((run / CONFIG_NAME).read_text())
    assert recorded["init_sha256"] == hashlib.sha256(kept).hexdigest()
    info = load_checkpoint(first).info
    others = {name: value + 1 for name, value in load_checkpoint(first).weights.items()}
    save_checkpoint(first, others, info)
    now = hashlib.sha256((first / CHECKPOINT_NAME).read_bytes()).hexdigest()
    with pytest.raises(ConfigError, match=f"another run: init_sha256 .*{now[:8]}"):
        train(asked, open_store(shards), run, resume=True)
    (first / CHECKPOINT_NAME).write_bytes(kept)
    assert train(asked, open_store(shards), run, resume=True).resumed_at == 2


def test_weights_on_another_encoder_are_refused(finished, shards, tmp_path):
    asked, store = replace(SMALL, init_from=str(finished.run_folder)), open_store(shards)
    encoder = store.index.fingerprint["encoder"]

    def seen_by(**changes):
        fingerprint = {**store.index.fingerprint, "encoder": {**encoder, **changes}}
        store.index = replace(store.index, fingerprint=fingerprint)
        return train(asked, store, tmp_path / "run")

    with pytest.raises(ConfigError, match="name 'synthetic' there and 'other' here"):
        seen_by(name="other")
    with pytest.raises(ConfigError, match=r"weights_sha256 none there and 'ab' here; one encoder"):
        seen_by(weights_sha256="ab")
    with pytest.raises(ConfigError, match="embedding_dim none there and 8 here"):
        seen_by(embedding_dim=8)
    assert not (tmp_path / "run" / CONFIG_NAME).exists()
    seen_by(grid=8, image_size=448)  # the same encoder on larger frames


def test_weights_on_who_knows_what_are_refused(finished, shards, tmp_path):
    known = load_checkpoint(finished.run_folder)
    (tmp_path / "first").mkdir()
    info = replace(known.info, fingerprint={"encoder": ["synthetic"]})
    save_checkpoint(tmp_path / "first", known.weights, info)
    asked = replace(SMALL, init_from=str(tmp_path / "first"))
    with pytest.raises(ConfigError, match="name none there and 'synthetic' here"):
        train(asked, open_store(shards), tmp_path / "run")


# --- kills while files are written ---


def save_for_ever(root, step):
    while True:
        step += 1
        run = root / f"run{step % 2}"
        run.mkdir(exist_ok=True)
        weights = {"w": torch.full((1 << 18,), float(step))}
        save_checkpoint(run, weights, replace(INFO, step=step))
        name_latest(run)


def kill_while_saving(root, step, seconds):
    # A fork has imported everything, so that all its time goes into writing.
    saver = multiprocessing.get_context("fork").Process(target=save_for_ever, args=(root, step))
    saver.start()
    time.sleep(seconds)
    saver.kill()
    saver.join()


def newest_whole(root):
    """Step of the checkpoint that latest leads to, all of whose weights are of that step."""
    checkpoint = load_checkpoint(root / "latest")
    assert (checkpoint.weights["w"] == checkpoint.info.step).all()
    return checkpoint.info.step


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_latest_leads_to_a_whole_checkpoint_whenever_its_writer_dies(tmp_path, kills):
    rng, step, moved = random.Random(0), 0, 0
    (tmp_path / "run0").mkdir()
    save_checkpoint(tmp_path / "run0", {"w": torch.zeros(1)}, replace(INFO, step=0))
    name_latest(tmp_path / "run0")
    for _ in range(kills):
        kill_while_saving(tmp_path, step, rng.uniform(0.0, 0.2))
        before, step = step, newest_whole(tmp_path)
        assert step >= before
        moved += step > before
    assert moved or kills < 10  # a slow machine may not save within so short a life


def test_latest_is_replaced_and_leads_on_after_the_folder_moved(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        name_latest(tmp_path / "runs" / name)
        assert os.readlink(tmp_path / "runs" / "latest") == name
    (tmp_path / "runs").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "latest").resolve() == (tmp_path / "moved" / "b")
    assert {path.name for path in Path(tmp_path / "moved").iterdir()} == {"a", "b", "latest"}


def test_a_run_that_is_called_latest_does_not_lead_to_itself(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("run", "latest"):
        name_latest(tmp_path / name)
        assert os.readlink(tmp_path / "latest") == "run"


def test_what_a_kill_left_beside_latest_is_removed_by_the_next_run(tmp_path):
    (tmp_path / "run").mkdir()
    old, new = tmp_path / "latest.1.tmp", tmp_path / "latest.2.tmp"
    for left in (old, new):
        left.symlink_to("gone", target_is_directory=True)
    long_ago = time.time() - 3600
    os.utime(old, (long_ago, long_ago), follow_symlinks=False)
    name_latest(tmp_path / "run")
    # The new one may be that of a process that ends right now.
    assert {path.name for path in tmp_path.iterdir()} == {"run", "latest", "latest.2.tmp"}


# --- what is on the disk when ---


def test_a_log_is_on_the_disk_before_the_state_that_goes_on_from_it(shards, tmp_path, monkeypatch):
    run, synced = tmp_path / "run", []
    real = os.fsync

    def note(descriptor):
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        lines = path.read_text().count("\n") if path.name == "log.jsonl" else 0
        synced.append((path.name, lines))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    train(replace(SMALL, episodes=64 * 4, select="last"), open_store(shards), run)
    of_files = [one for one in synced if one[0].startswith(("log.jsonl", "state", "checkpoint"))]
    assert of_files == [
        ("log.jsonl.tmp", 0),
        ("log.jsonl", 2),  # the state is of step 2
        ("state.safetensors.tmp", 0),
        ("log.jsonl", 4),
        ("checkpoint.safetensors.tmp", 0),
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_the_log_is_one_line(shards, tmp_path):
    run = tmp_path / "run"

    def fill(progress):
        if progress.step == 1:
            (run / "log.jsonl").unlink()
            (run / "log.jsonl").symlink_to("/dev/full")

    message = r"cannot write \S+log.jsonl \(No space left on device\).*make room.*--resume"
    with pytest.raises(ResourceError, match=message):
        train(SMALL, open_store(shards), run, on_progress=fill)
