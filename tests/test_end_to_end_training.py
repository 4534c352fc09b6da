"""Training from frames: what a run learns, keeps, and what reads it again."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from synthetic_frames import make_frame_shards
from synthetic_shards import make_shards
from torch.nn import functional
from typer.testing import CliRunner

import cli
from i2st_model.end_to_end.open_store import open_store, open_store_of
from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.methods.clips import Clips
from i2st_model.runs import CHECKPOINT_NAME, LOG_NAME
from i2st_model.tensor_files import load_tensors, save_tensors
from i2st_model.training.config import TrainConfig
from i2st_model.training.learners import build_learner
from i2st_model.training.run import train
from i2st_model.training.setup import own_torch, pool_sampler
from pipeline.encoders import get_encoder
from pipeline.encoders.encoding import encode_all
from pipeline.errors import CheckpointError, ConfigError
from pipeline.masks import unpack_masks
from pipeline.torchvision_shim import ensure_torchvision
from pipeline.views import square_view

ensure_torchvision()

timm = pytest.importorskip("timm")

NETWORK = {
    "dim": 16,
    "heads": 2,
    "mask_width": 8,
    "num_instances": 2,
    "perception_layers": 1,
    "pca_dim": 32,
}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_file(timm.create_model("test_resnet", zero_init_last=False).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames") / "toy"
    make_frame_shards(path, classes=(5, 3, 5), videos=4, frames=2)
    return path


@pytest.fixture(scope="module")
def small(weights):
    return TrainConfig(
        episodes=16 * 4,
        episodes_per_step=16,
        way=3,
        pool_classes=3,
        queries=1,
        network=NETWORK,
        encoder={"name": "timm:test_resnet", "weights": weights, "rate": 1e-3, "jitter": 0.2},
        val_every=4,
        val_episodes=30,
        state_every=2,
        stem_tokens=500,
        device="cpu",
    )


def opened(folder, config):
    return open_store(folder, encoder=config.encoder, frames=config.frames, device="cpu")


@pytest.fixture(scope="module")
def finished(folder, small, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(small, opened(folder, small), run)
    return run


def log_of(run):
    return [json.loads(line) for line in (run / LOG_NAME).read_text().splitlines()]


def names_in(run):
    with safe_open(run / CHECKPOINT_NAME, "pt") as file:
        return list(file.keys())


# --- features of frames ---


def test_frames_are_read_as_the_features_that_extraction_would_store(folder, small, weights):
    store = opened(folder, small)
    encoder = get_encoder("timm:test_resnet", weights=Path(weights))
    rows = np.array([3, 0])
    expected = [
        encode_all(encoder, square_view(images, image_size=encoder.image_size), 4)
        for images in store.reader.frames.images(rows)
    ]
    for row, features in enumerate(expected):
        assert torch.equal(store.tokens(rows)[row], features.tokens.float())
        assert torch.equal(store.frame_embedding(rows)[row], features.embedding.float())
    index = store.index
    assert (index.num_tokens, index.token_dim, index.stores) == (25, 96, "features")
    assert index.digest == store.reader.frames.index.digest
    assert index.fingerprint["encoder"]["trained"] == "full"


def test_a_store_that_was_opened_with_another_encoder_than_the_run_has_is_refused(
    folder, small, tmp_path
):
    store = opened(folder, small)
    for encoder in ({}, {**small.encoder, "trained": "last_blocks"}):
        with pytest.raises(ValueError, match="the store was opened with encoder .*trained='full'"):
            train(replace(small, encoder=encoder), store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_store_of_frames_gives_what_a_store_of_its_features_gives(folder, small):
    for frames in (1, 2):
        store = open_store(folder, encoder=small.encoder, frames=frames, device="cpu")
        plain = FeatureStore(store.reader, num_frames=frames)
        rows = np.array([4, 1])
        assert torch.equal(store.tokens(rows), plain.tokens(rows))
        assert torch.equal(store.frame_embedding(rows), plain.frame_embedding(rows))
        chosen = np.array([[1], [0]])
        assert torch.equal(store.tokens(rows, chosen), plain.tokens(rows, chosen))
        few = {"seed": 3, "max_tokens": 5 * 25}
        assert torch.equal(store.token_sample(rows, **few), plain.token_sample(rows, **few))
        few = {"seed": 3, "max_frames": 3}
        assert torch.equal(store.embedding_sample(rows, **few), plain.embedding_sample(rows, **few))


def test_masks_of_a_batch_lie_where_its_clips_show_the_action(folder, small):
    config = replace(small, encoder={**small.encoder, "jitter": 0.0}, flips=True)
    store = opened(folder, config)
    sampler = pool_sampler(config, store)
    learner = build_learner(config, store, classes=sampler.videos, device=CPU)
    learner.open(np.empty(0, np.int64))
    for number in range(3):
        batch = learner.batch(sampler.pool(number), number)
        assert batch.masks.valid.all()
        side = batch.masks.coverage.shape[-1]
        views = batch.seen.float().flatten(0, 1).permute(0, 3, 1, 2)
        cells = functional.interpolate(views, size=(side, side), mode="area").permute(0, 2, 3, 1)
        for frame, covered in enumerate(batch.masks.coverage.flatten(0, 1)):
            away = (cells[frame] - colour_of(store, batch.pool.rows.ravel()[frame // 2])).abs()
            # The square is flat; JPEG and resizing blur its border alone. A crop that is off, or
            # another orientation, puts ground under the mask.
            assert away[covered == 1].amax(dim=1).quantile(0.9) < 5
            assert away[covered == 0].mean() > 5
    again = learner.batch(sampler.pool(2), 2)
    assert torch.equal(again.seen, batch.seen)
    assert torch.equal(again.masks.coverage, batch.masks.coverage)


def colour_of(store, row):
    """Colour of a video's square, in its middle."""
    frames = store.reader.frames
    mask = unpack_masks(frames.masks([row]).bits)[0, 0, 0]
    y, x = (int(np.median(where)) * 64 // 128 for where in np.nonzero(mask))
    return torch.from_numpy(frames.images([row])[0][0, y, x].astype(np.float32))


# --- runs ---


def test_what_trains_lowers_the_loss_more_than_the_network_alone(folder, small, tmp_path):
    base = replace(small, episodes=16 * 8, select="last", network={**NETWORK, "dropout": 0.0})
    losses = {}
    for rate in (0.0, 3e-3):
        config = replace(base, encoder={**base.encoder, "rate": rate, "jitter": 0.0, "crop": False})
        train(config, opened(folder, config), tmp_path / str(rate))
        losses[rate] = [line["episode_loss"] for line in log_of(tmp_path / str(rate))]
    assert losses[0.0][0] == losses[3e-3][0]  # the first step is taken from the same weights
    assert np.mean(losses[3e-3][-3:]) < 0.7 * np.mean(losses[0.0][-3:])


def test_a_run_is_a_function_of_its_settings_and_no_run_begins_where_another_ended(
    folder, small, finished, tmp_path
):
    store = opened(folder, small)
    train(replace(small, seed=5), store, tmp_path / "other")
    train(small, store, tmp_path / "same")
    assert (tmp_path / "same" / LOG_NAME).read_bytes() == (finished / LOG_NAME).read_bytes()
    expected = (finished / CHECKPOINT_NAME).read_bytes()
    assert (tmp_path / "same" / CHECKPOINT_NAME).read_bytes() == expected
    assert (tmp_path / "other" / CHECKPOINT_NAME).read_bytes() != expected


@pytest.mark.parametrize("trained", ["full", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_run_that_was_cut_short_goes_on_to_the_same_bytes(folder, small, tmp_path, trained):
    config = replace(small, encoder={**small.encoder, "trained": trained})
    train(config, opened(folder, config), tmp_path / "whole")

    def cut(progress):
        if progress.step == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(config, opened(folder, config), tmp_path / "cut", on_progress=cut)
    report = train(config, opened(folder, config), tmp_path / "cut", resume=True)
    assert report.resumed_at == 2
    for name in (CHECKPOINT_NAME, LOG_NAME):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_adapters_start_from_the_seed_of_the_run(folder, small):
    config = replace(small, encoder={**small.encoder, "trained": "lora", "rank": 2})
    store, starts = opened(folder, config), []
    for seed in (0, 1, 0):
        seeded = replace(config, seed=seed)
        with own_torch():
            classes = pool_sampler(seeded, store).videos
            learner = build_learner(seeded, store, classes=classes, device=CPU)
        named = learner.network.encoder.named_parameters()
        starts.append(torch.cat([value.detach().flatten() for name, value in named]))
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[1])


def test_a_checkpoint_holds_what_trained_and_the_network(folder, small, finished, tmp_path):
    kinds = {name.split(".")[0] for name in names_in(finished)}
    assert kinds == {"encoder", "head"}
    assert any("/conv1/weight" in name for name in names_in(finished))
    assert not any("running" in name for name in names_in(finished))
    config = replace(
        small, encoder={**small.encoder, "trained": "lora"}, episodes=16, select="last"
    )
    train(config, opened(folder, config), tmp_path / "lora")
    encoder = [name for name in names_in(tmp_path / "lora") if name.startswith("encoder.")]
    assert encoder
    assert all("/lora_" in name for name in encoder)


@pytest.mark.parametrize(
    ("method", "options"),
    [("otam", {}), ("trx", {"cardinalities": [2], "width": 8})],
)
def test_any_method_trains_an_encoder_and_is_loaded_with_it(
    folder, small, tmp_path, method, options
):
    config = replace(small, method=method, network={}, options=options, episodes=32, select="last")
    store = opened(folder, config)
    train(config, store, tmp_path / "run")
    trained, _ = load_method(method, store, shards=folder, run=tmp_path / "run", device="cpu")
    again = open_store_of(tmp_path / "run", folder, device="cpu")
    loaded, checkpoint = load_method(
        method, again, shards=folder, run=tmp_path / "run", device="cpu"
    )
    assert checkpoint.info.method == method
    clips = Clips(features=again.frame_embedding(np.arange(3)))
    assert torch.equal(clips.features, store.frame_embedding(np.arange(3)))
    initial = opened(folder, config).frame_embedding(np.arange(3))
    assert not torch.equal(clips.features, initial)
    with torch.no_grad():
        for name, value in loaded.prepare(clips).items():
            assert torch.equal(value, trained.prepare(clips)[name])
    found = evaluate(loaded, again, EvaluateConfig(episodes=20, device="cpu"))
    assert found.method == method
    made_by = found.result.made_by
    assert made_by.encoder_run == "run"
    assert re.search(r"by the encoder of run run \(\w{8}\)", made_by.seen())
    own = evaluate(loaded, again, EvaluateConfig(episodes=20, device="cpu"), checkpoint=checkpoint)
    assert own.result.made_by.seen().endswith("frames by its own encoder")


# --- evaluation ---


def test_evaluation_sees_frames_by_the_encoder_of_the_run(folder, small, tmp_path):
    config = replace(small, select="last")
    store = opened(folder, config)
    before = store.tokens(np.array([0]))
    train(config, store, tmp_path / "run")  # leaves the trained weights in the store's encoder
    after = store.tokens(np.array([0]))
    assert not torch.equal(before, after)
    again = open_store_of(tmp_path / "run", folder, device="cpu")
    assert torch.equal(again.tokens(np.array([0])), after)
    settings = EvaluateConfig(episodes=40, device="cpu")
    found = []
    for read in (again, opened(folder, config)):
        method, checkpoint = load_method(
            "i2st", read, shards=folder, run=tmp_path / "run", device="cpu"
        )
        found.append(evaluate(method, read, settings, checkpoint=checkpoint))
    np.testing.assert_array_equal(found[0].per_episode, found[1].per_episode)
    assert found[0].num_videos == 20
    baseline, _ = load_method("protonet", again, shards=folder, device="cpu")
    assert 0 <= evaluate(baseline, again, settings).accuracy.mean <= 100


def test_validation_of_the_last_step_is_what_evaluation_finds(folder, small, tmp_path):
    config = replace(small, select="last")
    store = opened(folder, config)
    train(config, store, tmp_path / "run")
    with own_torch():
        learner = build_learner(
            config, store, classes=pool_sampler(config, store).videos, device=CPU
        )
    method, checkpoint = load_method(
        "i2st", store, shards=folder, run=tmp_path / "run", device="cpu"
    )
    learner.network.head.load_state_dict(method.network.state_dict())
    learner.network.eval()
    rows = np.arange(3)
    with torch.no_grad():
        prepared = learner.prepare(rows)
        expected = method.network(store.tokens(rows), with_masks=False).descriptors
    for name, value in prepared.items():
        assert torch.equal(value, expected[name])


def test_stores_and_runs_that_do_not_go_together_are_refused(
    folder, small, weights, finished, tmp_path
):
    with pytest.raises(ConfigError, match=r"holds frames; features were needed.*--set encoder"):
        open_store(folder, encoder={})
    features = tmp_path / "features"
    make_shards(features)
    with pytest.raises(ConfigError, match=r"'timm:test_resnet' trains from frames, .* features"):
        open_store(features, encoder=small.encoder)
    with pytest.raises(ConfigError, match="trains from frames"):
        open_store_of(finished, features)
    plain = open_store(features, encoder={})
    assert plain.index.stores == "features"
    with pytest.raises(ConfigError, match="trained on other features"):
        load_method("i2st", plain, shards=features, run=finished, device="cpu")
    other = {**small.encoder, "trained": "last_blocks"}
    frozen = open_store(folder, encoder=other, device="cpu")
    with pytest.raises(ConfigError, match=r"trained on other features .*trained"):
        load_method("i2st", frozen, shards=folder, run=finished, device="cpu")


def test_one_store_has_the_encoder_of_one_run(folder, small, finished, tmp_path):
    train(replace(small, seed=1, episodes=16), opened(folder, small), tmp_path / "other")
    store = open_store_of(finished, folder, device="cpu")
    with pytest.raises(ConfigError, match="evaluate the runs one by one"):
        load_method("i2st", store, shards=folder, run=tmp_path / "other", device="cpu")


def test_a_checkpoint_without_its_encoder_is_damaged(folder, finished, tmp_path):
    values, tensors = load_tensors(finished / CHECKPOINT_NAME)
    kept = {name: tensor for name, tensor in tensors.items() if "layer4" not in name}
    copy = tmp_path / "run"
    copy.mkdir()
    save_tensors(copy / CHECKPOINT_NAME, kept, values)
    with pytest.raises(CheckpointError, match=r"layer4.* absent there"):
        open_store_of(copy, folder, device="cpu")


def test_the_command_line_trains_an_encoder_and_evaluates_with_it(
    folder, weights, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def i2st(*words):
        done = CliRunner().invoke(cli.app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    few = "--way=3", "--device=cpu", "--episodes=10", "--json"
    sets = ["episodes_per_step=5", "pool_classes=3", "stem_tokens=200", "encoder.blocks=1"]
    sets += ["encoder.name=timm:test_resnet", f"encoder.weights={weights}"]
    sets += ["encoder.trained=last_blocks", *(f"network.{key}={NETWORK[key]}" for key in NETWORK)]
    words = [f"--set={word}" for word in sets]
    trained = i2st("train", "--shards", folder, "--select=last", *few, *words)
    assert trained["steps"] == 2
    found = i2st("evaluate", "--run", trained["run"], *few)
    assert found["num_videos"] == 20
    assert found["checkpoint"] == trained["checkpoint"]
