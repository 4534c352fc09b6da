import json
import random
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_shards import make_shards
from torch.nn import functional

from i2st_model.checkpoints import load_checkpoint
from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.methods import get_method
from i2st_model.runs import CHECKPOINT_NAME, LOG_NAME, STATE_NAME
from i2st_model.training import pool_losses
from i2st_model.training.cached_clips import flip_tokens
from i2st_model.training.config import TrainConfig, train_config
from i2st_model.training.data import flips_for
from i2st_model.training.learners import build_learner
from i2st_model.training.ranks import Ranks
from i2st_model.training.run import train
from i2st_model.training.setup import build_untrained, pool_sampler
from i2st_model.training.step import build_optimizer, take_step
from i2st_model.training.step_pools import step_pools
from i2st_model.training.validation import Validation
from pipeline.errors import CheckpointError, ConfigError, I2STError, ShardError

NETWORK = {"dim": 16, "heads": 2, "mask_width": 8, "num_instances": 2, "perception_layers": 1}
SMALL = TrainConfig(
    episodes=64 * 6,
    network=NETWORK,
    val_every=2,
    val_episodes=40,
    state_every=2,
    stem_tokens=2000,
    device="cpu",
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "toy"
    make_shards(folder, signal=2.0)
    return folder


@pytest.fixture(scope="module")
def store(shards):
    return open_store(shards)


def open_store(folder):
    from pipeline.shards.reader import ShardReader

    return FeatureStore(ShardReader(folder))


@pytest.fixture(scope="module")
def uninterrupted(store, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    return train(SMALL, store, run)


def weights_of(run):
    return (run / CHECKPOINT_NAME).read_bytes()


def log_of(run):
    return [json.loads(line) for line in (run / LOG_NAME).read_text().splitlines()]


# --- what a run leaves ---


def test_training_learns_what_carries_over_to_unseen_classes(tmp_path):
    # What differs most between clips says nothing of the class; the untrained network follows it.
    shards = tmp_path / "s"
    store = FeatureStore(make_shards(shards, classes=(8, 5, 5), signal=4.0, nuisance=2.0))
    eager = replace(SMALL, episodes=64 * 25, select="last", fast_rate=1e-2, slow_rate=3e-3)
    report = train(eager, store, tmp_path / "run")
    method, checkpoint = load_method("i2st", store, shards=shards, run=report.run_folder)
    config = EvaluateConfig(episodes=500, device="cpu")
    trained = evaluate(method, store, config, checkpoint=checkpoint)
    untrained_method = get_method("i2st", network=build_untrained(SMALL, store))
    untrained = evaluate(untrained_method, store, config)
    assert untrained.accuracy.mean < 35
    assert trained.accuracy.mean > 45
    masks = [line["mask_loss"] for line in log_of(report.run_folder)]
    assert np.mean(masks[-5:]) < 0.8 * masks[0]


def test_report_log_and_checkpoint_agree(uninterrupted, store):
    lines = log_of(uninterrupted.run_folder)
    assert [line["step"] for line in lines] == list(range(7))
    assert [line["episodes"] for line in lines] == [64 * step for step in range(7)]
    looked_at = {line["step"]: line["val_accuracy"] for line in lines if "val_accuracy" in line}
    assert sorted(looked_at) == [0, 2, 4, 6]
    best = max(looked_at[step] for step in (2, 4, 6))  # step 0 is logged but not a candidate
    first = next(step for step in (2, 4, 6) if looked_at[step] == best)
    info = load_checkpoint(uninterrupted.run_folder).info
    assert (info.step, info.val_accuracy, info.selected) == (first, best, "val")
    assert (uninterrupted.step, uninterrupted.val_accuracy) == (first, best)
    assert info.train_classes == [f"train {n}" for n in range(6)]
    assert info.digest == store.index.digest
    assert info.dataset == "toy"
    assert info.fingerprint == store.index.fingerprint
    assert train_config(info.train) == SMALL
    names = {path.name for path in uninterrupted.run_folder.iterdir()}
    assert names == {"config.json", "log.jsonl", "checkpoint.safetensors", ".lock"}


def test_last_step_holds_the_episodes_that_are_left(store, tmp_path):
    calls = []
    config = replace(SMALL, episodes=100, select="last")
    report = train(config, store, tmp_path / "run", on_progress=calls.append)
    assert report.num_steps == 2
    told = [call for call in calls if not call.under_way]
    assert [call.episodes for call in told] == [0, 64, 100]
    assert [call.step for call in told] == [0, 1, 2]
    assert (report.selected, report.step, report.val_accuracy) == ("last", 2, None)


def test_training_leaves_the_callers_random_state_and_threads_alone(store, tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(replace(SMALL, episodes=64, select="last"), store, tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == 1


# --- the same weights again ---

RUNNER = """
import sys, torch
sys.path.insert(0, "tests")
torch.set_num_threads(1)
from pathlib import Path
from test_training import SMALL, open_store
from i2st_model.training.ranks import Ranks
from i2st_model.training.run import train
train(SMALL, open_store(Path(sys.argv[1])), Path(sys.argv[2]), resume=True,
      on_progress=lambda progress: print(progress.step, flush=True))
"""


def run_and_kill(shards, run, at_step, repository):
    command = [sys.executable, "-c", RUNNER, str(shards), str(run)]
    process = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == at_step:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    process.stdout.close()
    return process.returncode


@pytest.mark.parametrize("kills", [[1], [3, 5]])
def test_killed_and_resumed_run_ends_in_the_same_bits(
    shards, store, uninterrupted, tmp_path, repository, kills
):
    run = tmp_path / "run"
    for step in kills:
        assert run_and_kill(shards, run, step, repository) == -signal.SIGKILL
        assert not (run / CHECKPOINT_NAME).exists()
    report = train(SMALL, store, run, resume=True)
    # Killed after step 1 there is no state yet; after 5, that of step 4.
    assert report.resumed_at == (None if kills == [1] else 4)
    assert weights_of(run) == weights_of(uninterrupted.run_folder)
    assert (run / LOG_NAME).read_bytes() == (uninterrupted.run_folder / LOG_NAME).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_run_killed_at_random_moments_ends_in_the_same_bits(
    shards, uninterrupted, tmp_path, repository
):
    rng = random.Random(0)
    command = [sys.executable, "-c", RUNNER, str(shards)]
    all_kills = 0
    for trial in range(20):
        run = tmp_path / f"run{trial}"
        kills = 0
        while not (run / CHECKPOINT_NAME).exists():
            process = subprocess.Popen([*command, str(run)], cwd=repository, stdout=subprocess.PIPE)
            process.stdout.readline()  # step 0: from here on any moment will do
            try:
                process.wait(timeout=rng.uniform(0.02, 1.0 + kills))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
            process.stdout.close()
        all_kills += kills
        assert weights_of(run) == weights_of(uninterrupted.run_folder)
        assert (run / LOG_NAME).read_bytes() == (uninterrupted.run_folder / LOG_NAME).read_bytes()
    assert all_kills >= 5


def test_resuming_a_finished_run_changes_nothing(store, uninterrupted):
    before = weights_of(uninterrupted.run_folder)
    report = train(SMALL, store, uninterrupted.run_folder, resume=True)
    assert weights_of(uninterrupted.run_folder) == before
    assert (report.step, report.num_steps) == (uninterrupted.step, uninterrupted.num_steps)
    assert report.notes == ("the run was finished already",)


def test_a_run_folder_in_use_is_refused_unless_resumed_with_the_same_settings(store, uninterrupted):
    with pytest.raises(ConfigError, match="holds a run already.*pass --resume"):
        train(SMALL, store, uninterrupted.run_folder)
    other = replace(SMALL, seed=1, network={**NETWORK, "dim": 32})
    message = r"another run: network\.dim 16 there and 32 here, train\.seed 0 there and 1 here"
    with pytest.raises(ConfigError, match=message):
        train(other, store, uninterrupted.run_folder, resume=True)


def test_damaged_state_is_refused(store, tmp_path, monkeypatch):
    run = tmp_path / "run"

    def stop(progress):
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(SMALL, store, run, on_progress=stop)
    whole = (run / STATE_NAME).read_bytes()
    (run / STATE_NAME).write_bytes(whole[:-5])
    with pytest.raises(CheckpointError, match=r"state\.safetensors cannot be used"):
        train(SMALL, store, run, resume=True)


def test_weights_do_not_depend_on_whether_the_cache_fits(store, uninterrupted, tmp_path):
    run = tmp_path / "run"
    train(replace(SMALL, cache_gib=0.0), store, run)
    expected = load_checkpoint(uninterrupted.run_folder).weights
    for name, value in load_checkpoint(run).weights.items():
        assert torch.equal(value, expected[name]), name


def test_seeds_give_different_weights(store, uninterrupted, tmp_path):
    train(replace(SMALL, seed=1), store, tmp_path / "run")
    other = load_checkpoint(tmp_path / "run").weights["projection.weight"]
    assert not torch.equal(
        other, load_checkpoint(uninterrupted.run_folder).weights["projection.weight"]
    )


@pytest.mark.parametrize(("asked", "there"), [(1, 5), (5, 5), (6, 6), (32, 6)])
def test_a_pool_holds_as_many_classes_as_asked_for(store, asked, there):
    # At least the way of its episodes, at most the train classes.
    pool = pool_sampler(replace(SMALL, pool_classes=asked), store).pool(0, 2)
    assert len(set(pool.classes.tolist())) == len(pool.rows) == there


def test_steps_are_logged_and_told_as_seldom_as_asked_for_and_the_last_always(store, tmp_path):
    config, told = replace(SMALL, episodes=64 * 5, select="last", log_every=2), []
    report = train(config, store, tmp_path / "run", on_progress=told.append)
    assert [line["step"] for line in log_of(report.run_folder)] == [2, 4, 5]
    assert [progress.step for progress in told if not progress.under_way] == [0, 2, 4, 5]


def test_what_may_take_longer_than_a_step_is_told_before_it_begins(store, tmp_path):
    told, run = [], tmp_path / "run"
    config = replace(SMALL, episodes=64 * 3, val_every=2, state_every=1)

    def tell(progress):
        told.append((progress.step, progress.under_way))

    def stop(progress):
        tell(progress)
        if told[-1] == (2, ""):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, store, run, on_progress=stop)
    look = f"looking at {len(store.rows_of(store.classes_of('val')))} val videos"
    begun = [(0, "fitting to train videos"), (0, "reading train and val videos"), (0, "")]
    first = [*begun, (0, look), (0, "step 1"), (1, "")]
    assert told == [*first, (2, look), (2, "")]
    told.clear()
    train(config, store, run, resume=True, on_progress=tell)
    begun = [(1, "reading train and val videos"), (1, ""), (1, "step 2")]
    assert told == [*begun, (2, look), (2, ""), (3, look), (3, "")]
    told.clear()
    train(replace(config, select="last"), store, tmp_path / "last", on_progress=tell)
    begun = [(0, "fitting to train videos"), (0, "reading train videos"), (0, ""), (0, "step 1")]
    assert told == [*begun, (1, ""), (2, ""), (3, "")]


@pytest.mark.parametrize("asked", [False, True])
def test_the_encoding_of_clips_is_compiled_where_asked(store, monkeypatch, asked):
    plain = make_learner(store, SMALL)
    calls = []

    def compiling(encode):
        return lambda *given, **named: calls.append(1) or encode(*given, **named)

    monkeypatch.setattr(torch, "compile", compiling)
    totals = []
    for learner in (plain, make_learner(store, replace(SMALL, compile=asked))):
        torch.manual_seed(0)
        learner.network.load_state_dict(plain.network.state_dict())
        totals.append(learner.losses(make_batch(learner, 0, 4)).total)
    assert len(calls) == asked
    assert torch.equal(*totals)


# --- one step ---


def make_learner(store, config, *, mask_side=None):
    classes = pool_sampler(config, store).videos
    learner = build_learner(config, store, classes=classes, device=torch.device("cpu"))
    if mask_side is not None:
        learner.head.mask_side = mask_side
    learner.begin()
    learner.open(np.empty(0, dtype=np.int64))
    learner.network.train()
    return learner


def make_batch(learner, number, episodes):
    pool = pool_sampler(learner.config, learner.store).pool(number, episodes)
    return learner.batch(pool, number)


def one_step(learner, batch, *, step):
    optimizer = build_optimizer(learner.config, learner)
    pools = step_pools(learner.config, step)
    return take_step(learner.config, learner, optimizer, [batch], pools=pools, ranks=Ranks())


def test_step_loss_equals_a_loop_over_episodes(store):
    dry = {**NETWORK, "dropout": 0.0, "channel_dropout": 0.0}
    config = replace(SMALL, network=dry, alpha=0.5, beta=0.25)
    learner = make_learner(store, config)
    network, batch = learner.network, make_batch(learner, 0, 8)
    encoded = network.encode(batch.seen)
    losses, right = [], []
    for support, query in zip(batch.pool.support, batch.pool.query, strict=True):
        for true, clips in enumerate(query):
            for clip in clips:
                one = {name: value[[clip]][None] for name, value in encoded.descriptors.items()}
                all_ = {name: value[support][None] for name, value in encoded.descriptors.items()}
                scores = network.logits(one, all_)[0, 0]
                losses.append(-scores.log_softmax(0)[true].item())
                right.append(scores.argmax().item() == true)
    truth = torch.from_numpy(np.repeat(batch.pool.classes, 3))  # the train classes come first
    base = functional.cross_entropy(encoded.base_logits[:, 0], truth).item()
    result = one_step(learner, batch, step=0)
    assert result.parts["episode"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert result.accuracy == pytest.approx(100 * np.mean(right), abs=1e-3)
    assert result.parts["base"] == pytest.approx(base, rel=1e-5)
    whole = result.parts["episode"] + 0.5 * result.parts["base"] + 0.25 * result.parts["mask"]
    assert result.loss == pytest.approx(whole, rel=1e-5)


def test_projection_and_mask_decoder_learn_at_the_fast_rate(store):
    config = replace(SMALL, episodes=6400, weight_decay=0.0, fast_rate=1e-3, slow_rate=1e-4)
    learner = make_learner(store, config)
    network = learner.network
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one_step(learner, make_batch(learner, 0, 8), step=4)  # the warm-up is over
    # Adam's first step moves each weight with a gradient by its rate, whatever the gradient.
    moved = {
        name: (value - before[name]).abs().max().item()
        for name, value in network.named_parameters()
    }
    for name, distance in moved.items():
        fast = name.startswith(("projection.", "perception.decoder."))
        rate = config.fast_rate if fast else config.slow_rate
        assert distance <= rate * 1.01, name
    assert moved["projection.weight"] == pytest.approx(1e-3, rel=0.02)
    assert moved["head.mix.weight"] == pytest.approx(1e-4, rel=0.02)


def test_a_step_keeps_to_the_schedule_the_decay_and_the_longest_gradient(store):
    config = replace(SMALL, episodes=64 * 100, warmup=0.05, weight_decay=0.3, gradient_clip=0.01)
    learner = make_learner(store, config)
    optimizer = build_optimizer(config, learner)
    pools = step_pools(config, 1)
    batch = make_batch(learner, 1, 8)
    result = take_step(config, learner, optimizer, [batch], pools=pools, ranks=Ranks())
    # The second of five steps of warm-up.
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.4 * config.fast_rate, 0.4 * config.slow_rate])
    assert result.learning_rate == rates[0]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.3}
    assert result.gradient_norm > 0.01
    gradients = [one.grad for one in learner.network.parameters() if one.grad is not None]
    assert torch.nn.utils.get_total_norm(gradients).item() == pytest.approx(0.01, rel=1e-3)


def test_loss_that_is_not_finite_stops_with_step_and_episodes(store, tmp_path, monkeypatch):
    real = pool_losses.episode_loss
    calls = []

    def fails_at_third(logits, labels):
        calls.append(1)
        return real(logits, labels) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(pool_losses, "episode_loss", fails_at_third)
    message = (
        r"loss is nan in its term episode at step 3 \(episodes 128 to 191 of seed 0\).*"
        r"lower the learning rates.*`i2st replay .*run` shows where"
    )
    with pytest.raises(I2STError, match=message):
        train(SMALL, store, tmp_path / "run")
    assert (tmp_path / "run" / STATE_NAME).exists()  # of step 2: a resumed run stops there again


# --- clips and masks ---


def test_clips_and_masks_are_mirrored_together(store):
    learner = make_learner(store, SMALL, mask_side=4)
    batch = make_batch(learner, 3, 8)
    rows = batch.pool.rows.ravel()
    plain = learner.data.clips.features.clips(rows).unflatten(2, (4, 4))
    coverage, valid = store.mask_targets(rows, 4)
    mirrored = 0
    for clip in range(len(rows)):
        seen = batch.seen[clip].unflatten(1, (4, 4))
        flipped = not torch.equal(seen, plain[clip])
        mirrored += flipped
        axes = [2] if flipped else []
        assert torch.equal(seen, plain[clip].flip(axes))
        assert torch.equal(batch.masks.coverage[clip], coverage[clip].flip(axes))
    assert 4 <= mirrored <= 14  # of 18, half expected
    assert torch.equal(batch.masks.valid, valid)


def test_every_pool_draws_frames_and_flips_of_its_own(store):
    two = FeatureStore(store.reader, num_frames=2)
    config = replace(SMALL, frames=2)
    learner = make_learner(two, config)
    pool = pool_sampler(config, two).pool(0, 4)
    first, other, again = (learner.batch(pool, number).seen for number in (0, 1, 0))
    assert torch.equal(first, again)
    differing = (first != other).flatten(1).any(dim=1)
    assert differing.float().mean() > 0.5


def test_flip_tokens_reverses_grid_columns():
    tokens = torch.arange(2 * 6.0 * 6).view(2, 1, 36, 1)
    flipped = flip_tokens(tokens.clone(), np.array([False, True]), 6)
    assert torch.equal(flipped[0], tokens[0])
    expected = np.arange(36, 72).reshape(6, 6)[:, ::-1]
    np.testing.assert_array_equal(flipped[1, 0, :, 0].numpy().reshape(6, 6), expected)


@pytest.mark.parametrize(
    ("flips", "dataset", "expected"),
    [
        (None, "hmdb51", True),
        (None, "ssv2-full", False),
        (True, "ssv2-full", True),
        (False, "a", 0),
    ],
)
def test_clips_are_mirrored_unless_classes_tell_left_from_right(flips, dataset, expected):
    assert flips_for(replace(SMALL, flips=flips), dataset) == bool(expected)


def test_shuffled_masks_give_every_video_the_masks_of_another(store):
    data = make_learner(store, replace(SMALL, masks="shuffled")).data
    rows = store.rows_of(store.classes_of("train")).tolist()
    assert sorted(data.mask_source) == rows
    assert sorted(data.mask_source.values()) == rows
    assert all(row != source for row, source in data.mask_source.items())
    true = make_learner(store, SMALL).data
    assert true.mask_source == {row: row for row in rows}


@pytest.mark.parametrize("changes", [{"masks": "off"}, {"beta": 0.0}])
def test_masks_can_be_left_out(store, tmp_path, changes):
    report = train(replace(SMALL, episodes=64, **changes), store, tmp_path / "run")
    assert log_of(report.run_folder)[1]["mask_loss"] == 0.0


def test_masks_of_which_not_one_was_found_are_refused_and_lacking_ones_are_told_of(
    store, tmp_path, monkeypatch
):
    def some(count):
        return lambda rows: np.arange(len(rows)) < count

    monkeypatch.setattr(store.reader, "with_masks", some(0))
    with pytest.raises(ConfigError, match=r"none of \d+ train videos of toy has a mask"):
        train(SMALL, store, tmp_path / "run")
    monkeypatch.setattr(store.reader, "with_masks", some(5))
    few = replace(SMALL, episodes=SMALL.episodes_per_step)
    (said,) = [one for one in train(few, store, tmp_path / "run").notes if "mask" in one]
    num_train = sum(video.split == "train" for video in store.index.videos)
    assert said.startswith(f"{num_train - 5} of {num_train} train videos have no mask")
    # Shards whose train videos all have one say nothing, nor do runs that read no masks.
    monkeypatch.undo()
    assert not any("mask" in one for one in train(few, store, tmp_path / "all").notes)


def test_videos_with_a_mask_are_those_of_which_one_was_found(store):
    train = np.flatnonzero(store.reader.split == "train")
    found = store.reader.masks(train).found.any(axis=(1, 2))
    assert store.reader.with_masks(train).tolist() == found.tolist()
    test = np.flatnonzero(store.reader.split == "test")
    with pytest.raises(ShardError, match="masks depend on the label"):
        store.reader.with_masks(test)


def test_masks_asked_for_where_none_are_is_refused(tmp_path):
    store = FeatureStore(make_shards(tmp_path / "s", masks=False))
    with pytest.raises(ConfigError, match="of toy hold no masks, masks='true' asks.*--masks off"):
        train(replace(SMALL, episodes=64), store, tmp_path / "run")
    # The hint works, in the same folder too: nothing was recorded there.
    train(replace(SMALL, episodes=64, masks="off"), store, tmp_path / "run")
    linear = replace(SMALL, episodes=64, preset="linear", network={"dim": 16, "heads": 2})
    train(linear, store, tmp_path / "linear")  # has no masks to supervise


# --- which classes ---


def test_val_ways_shrink_to_the_classes_there_are(tmp_path):
    store = FeatureStore(make_shards(tmp_path / "s", classes=(6, 4, 5)))
    seen = []
    report = train(replace(SMALL, episodes=128), store, tmp_path / "run", on_progress=seen.append)
    note = "selecting on 4-way episodes: toy has 4 val classes, way=5 needs 5"
    assert note in report.notes
    assert [note in one.notes for one in seen].count(True) == 1
    assert all(note in one.notes for one in seen if one.notes)
    assert report.selected == "val"


@pytest.mark.parametrize("num_val", [0, 1])
def test_without_val_classes_the_last_weights_are_kept(tmp_path, num_val):
    store = FeatureStore(make_shards(tmp_path / "s", classes=(6, num_val, 5)))
    report = train(replace(SMALL, episodes=128), store, tmp_path / "run")
    assert (report.selected, report.step) == ("last", 2)
    classes = "1 val class" if num_val == 1 else f"{num_val} val classes"
    assert f"toy has {classes} to select on; needed: 2 with 2 videos each" in report.notes[0]


def test_the_first_of_equally_good_weights_are_kept(store, tmp_path, monkeypatch):
    looks = iter([90.0, 50.0, 60.0, 60.0])
    monkeypatch.setattr(Validation, "accuracy", lambda self, learner: next(looks))
    report = train(SMALL, store, tmp_path / "run")
    assert (report.step, report.val_accuracy) == (4, 60.0)  # step 0 is no candidate


def test_train_and_val_classes_can_be_given_for_cross_validation(store, tmp_path):
    chosen = ("train 0", "train 2", "train 4", "val 0", "val 3")
    config = replace(
        SMALL, episodes=128, classes=chosen, val_classes=("train 1", "train 3", "train 5")
    )
    report = train(config, store, tmp_path / "run")
    assert report.train_classes == chosen
    assert any("3-way" in note for note in report.notes)
    batch = make_batch(make_learner(store, config), 0, 4)
    from_val = np.repeat(batch.pool.classes >= 6, 3)
    valid = batch.masks.valid.all(dim=1).numpy()
    np.testing.assert_array_equal(valid, ~from_val)  # masks exist for the train split alone
    overlap = replace(config, val_classes=("train 0", "train 1"))
    with pytest.raises(ConfigError, match="'train 0' is in the train and in the val classes"):
        train(overlap, store, tmp_path / "other")


@pytest.mark.parametrize(
    ("val_classes", "message"),
    [
        (("val 0", "val 1", "vla 2"), "toy has no class 'vla 2'"),
        (("val 0", "test 1"), "val class 'test 1' is of the test split, on which nothing is"),
    ],
)
def test_val_classes_that_are_unknown_or_of_the_test_split_are_refused(
    store, tmp_path, val_classes, message
):
    with pytest.raises(ConfigError, match=message):
        train(replace(SMALL, val_classes=val_classes), store, tmp_path / "run")


def test_options_of_a_network_that_has_none_are_refused(store, tmp_path):
    cases = {
        "options.width is set, method i2st has no options": {"options": {"width": 64}},
        "i2st has no option 'width'": {"method": "i2st:width=64"},
    }
    for message, asked in cases.items():
        with pytest.raises(ConfigError, match=message):
            train(replace(SMALL, **asked), store, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("method", ["i2st", "hyrsm"])
def test_whatever_is_fitted_sees_train_classes_alone(store, monkeypatch, method):
    read = set()
    for name in ("tokens", "frame_embedding"):
        honest = getattr(store.reader, name)

        def spy(rows, views=None, honest=honest):
            read.update(np.atleast_1d(rows).tolist())
            return honest(rows, views)

        monkeypatch.setattr(store.reader, name, spy)
    settings = {} if method == "i2st" else {"network": {}, "options": {"heads": 4}}
    config = replace(SMALL, method=method, stem_tokens=10**6, **settings)
    classes = pool_sampler(config, store).videos
    learner = build_learner(config, store, classes=classes, device=torch.device("cpu"))
    learner.begin()
    assert read == set(store.rows_of([f"train {n}" for n in range(6)]).tolist())


def test_too_few_train_classes_are_refused_before_anything_is_written(tmp_path):
    store = FeatureStore(make_shards(tmp_path / "s", classes=(4, 4, 4)))
    message = "split 'train' of toy has 4 classes, way=5 needs 5; lower way"
    with pytest.raises(ConfigError, match=message):
        train(SMALL, store, tmp_path / "run")
    train(replace(SMALL, episodes=64, way=4), store, tmp_path / "run")  # the hint works


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"episodes": 0}, "episodes=0 is out of range; at least 1"),
        ({"masks": "none"}, "masks='none' is unknown; one of true, shuffled, off"),
        ({"select": "test"}, "select='test' is unknown; one of val, last"),
        ({"fast_rate": -1.0}, "fast_rate=-1"),
        ({"fast_rate": float("nan")}, "fast_rate=nan"),
        ({"fast_rate": float("inf")}, "fast_rate=inf is out of range; at least 0, finite"),
        ({"fast_rate": True}, "fast_rate=True is no number"),
        ({"episodes": 1e3}, "episodes=1000.0 is no whole number"),
        ({"seed": -1}, "seed=-1 is out of range"),
        ({"seed": 2**64}, "seed=18446744073709551616 is out of range"),
        ({"flips": "maybe"}, "flips='maybe' is no truth value"),
        ({"frames": 0}, "frames=0 is out of range; at least 1"),
        ({"warmup": 3}, "warmup=3 is out of range; 0 to 1"),
        ({"classes": "run"}, r"classes='run'; a list of class names was needed, such as \[run"),
    ],
)
def test_senseless_settings_are_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        replace(SMALL, **changes)


def test_config_round_trips_through_json():
    config = replace(SMALL, classes=("a", "b"), flips=False, frames=4)
    assert train_config(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigError, match="unknown train setting 'speed'"):
        train_config({"speed": 3})
