"""Runs on shards with the switches that change which features the network reads."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_shards import make_shards

from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.stem_features import ClipFeatures, StemFeatures
from i2st_model.training.cached_clips import flip_tokens
from i2st_model.training.config import TrainConfig
from i2st_model.training.run import train
from i2st_model.training.setup import build_untrained
from pipeline.shards.reader import ShardReader

NETWORK = {"dim": 16, "heads": 2, "mask_width": 8, "num_instances": 2, "perception_layers": 1}
SMALL = TrainConfig(episodes=128, network=NETWORK, val_every=1, val_episodes=20, device="cpu")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "toy"
    make_shards(folder, signal=3.0)
    return folder


@pytest.fixture(scope="module")
def store(shards):
    return FeatureStore(ShardReader(shards))


@pytest.mark.parametrize(
    "settings",
    [{"image_token": "embedding"}, {"pool_grid": 2}, {"image_token": "embedding", "pool_grid": 1}],
    ids=str,
)
def test_run_trains_and_evaluates(store, shards, tmp_path, settings):
    config = replace(SMALL, network={**NETWORK, **settings})
    train(config, store, tmp_path / "run")
    method, checkpoint = load_method("i2st", store, shards=shards, run=tmp_path / "run")
    assert checkpoint.info.network["embedding_dim"] == store.index.embedding_dim
    asked = EvaluateConfig(episodes=100, device="cpu")
    # Chance is 20; the class's direction is in the tokens and in the embedding.
    assert evaluate(method, store, asked, checkpoint=checkpoint).accuracy.mean > 60


def test_stem_features_put_the_embedding_before_the_cells(store):
    config = replace(SMALL, network={**NETWORK, "image_token": "embedding"})
    network = build_untrained(config, store)
    rows = store.rows_of(store.classes_of("train"))[:3]
    device = torch.device("cpu")
    outputs = StemFeatures(store, network.stem, device)
    kept = ClipFeatures(store, outputs, rows, budget_bytes=1 << 30, device=device).clips(rows)
    stem = network.stem
    image = (store.frame_embedding(rows) - stem.embedding_mean) @ stem.embedding_components
    torch.testing.assert_close(kept[:, :, 0], image, atol=2e-3, rtol=2e-3)
    cells = (store.tokens(rows) - stem.mean) @ stem.components
    torch.testing.assert_close(kept[:, :, 1:], cells, atol=2e-3, rtol=2e-3)


def test_flip_tokens_leaves_what_comes_before_the_cells():
    tokens = torch.arange(2 * 1 * 5 * 1.0).view(2, 1, 5, 1)
    flipped = flip_tokens(tokens.clone(), np.array([False, True]), 2)
    assert flipped[0].flatten().tolist() == [0, 1, 2, 3, 4]
    assert flipped[1].flatten().tolist() == [5, 7, 6, 9, 8]


def test_embedding_sample_is_drawn_over_videos_and_bounded(store):
    rows = store.rows_of(store.classes_of("train"))
    found = store.embedding_sample(rows, seed=0, max_frames=60)
    everything = store.frame_embedding(rows).flatten(0, 1)
    assert found.shape == (60, store.index.embedding_dim)
    places = [(everything == frame).all(dim=1).nonzero().item() for frame in found]
    assert len(set(places)) == 60
    # 48 videos with 4 frames each: 60 frames need 2 of a video at most, hence 30 videos or more.
    assert len({place // store.num_stored for place in places}) >= 30
    assert torch.equal(found, store.embedding_sample(rows, seed=0, max_frames=60))
