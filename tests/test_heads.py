"""What heads make of a pool: losses in float32 whatever encodes it, and features as stored."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_frames import make_frame_shards
from synthetic_shards import make_shards
from test_training import NETWORK, SMALL
from torch import nn

from i2st_model.evaluation import EvaluateConfig, prepare
from i2st_model.features import FeatureStore
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.stem_features import ClipFeatures, StemFeatures, StoredFeatures
from i2st_model.train_descriptors import mean_descriptor
from i2st_model.training.learners import build_learner
from i2st_model.training.setup import NO_ROWS, build_untrained, pool_sampler
from pipeline.torchvision_shim import ensure_torchvision

CPU = torch.device("cpu")
HALF = replace(SMALL, precision="bf16")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return FeatureStore(make_shards(tmp_path_factory.mktemp("shards") / "toy", signal=2.0))


class Linear(FewShotMethod):
    """Prototypes after one layer; says what it was given to score."""

    name = "linear"
    trainable = True

    def fit(self, train):
        self.layer, self.seen = nn.Linear(train.embedding_dim, 8), {}

    def prepare(self, clips):
        return {"clip": self.layer(clips.features).mean(dim=1), "video": clips.videos}

    def score(self, support, query):
        self.seen = {name: value.dtype for name, value in query.items()}
        prototypes = support["clip"].mean(dim=2)
        return -(query["clip"].unsqueeze(2) - prototypes.unsqueeze(1)).square().sum(dim=-1)


class Cells(Linear):
    """The same over the cells of a frame."""

    needs = "tokens"

    def prepare(self, clips):
        return {"clip": self.layer(clips.features).mean(dim=(1, 2)), "video": clips.videos}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    from i2st_model import methods

    for method in (Linear, Cells):
        monkeypatch.setitem(methods.METHODS, method.__name__.lower(), lambda method=method: method)


def opened(store, config, val_rows=NO_ROWS):
    torch.manual_seed(0)
    classes = pool_sampler(config, store).videos
    learner = build_learner(config, store, classes=classes, device=CPU)
    learner.begin()
    learner.open(val_rows)
    learner.network.train()
    return learner, learner.batch(pool_sampler(config, store).pool(0, 8), 0)


def cross_entropy(logits, label):
    """Of (classes,) float64 logits."""
    return -(logits[label] - logits.logsumexp(dim=0)).item()


# --- bfloat16 ---


def test_losses_of_a_network_in_bfloat16_are_those_of_its_outputs_in_float64(store):
    dry = {**NETWORK, "dropout": 0.0, "channel_dropout": 0.0}
    learner, batch = opened(store, replace(HALF, network=dry, alpha=0.5, dice=0.5))
    network = learner.network
    losses = learner.losses(batch)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        encoded = network.encode(batch.seen, with_masks=True)
    assert encoded.base_logits.dtype == encoded.mask_logits.dtype == torch.bfloat16
    assert {part.dtype for part in (*losses.parts.values(), losses.total)} == {torch.float32}
    base = [
        cross_entropy(logits, label)
        for logits, label in zip(
            encoded.base_logits[:, 0].double(), batch.base_classes, strict=True
        )
    ]
    assert losses.parts["base"].item() == pytest.approx(np.mean(base), rel=1e-5)
    pixels, overlaps = [], []
    for logits, truth in zip(
        encoded.mask_logits[batch.masks.valid].double(),
        batch.masks.coverage[batch.masks.valid].double(),
        strict=True,
    ):
        share = logits.sigmoid()
        pixels.append(-(truth * share.log() + (1 - truth) * (1 - share).log()).mean().item())
        both = 2 * (share * truth).sum() + 1
        overlaps.append(1 - (both / (share.sum() + truth.sum() + 1)).item())
    mask = np.mean(pixels) + 0.5 * np.mean(overlaps)
    assert losses.parts["mask"].item() == pytest.approx(mask, rel=1e-4)


def test_a_method_in_bfloat16_scores_float32_and_whole_numbers(store):
    learner, batch = opened(store, replace(HALF, method="linear", network={}))
    losses = learner.losses(batch)
    assert learner.network.seen == {"clip": torch.float32, "video": torch.int64}
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        layer = learner.network.layer(batch.seen)
    assert layer.dtype == torch.bfloat16
    clips = layer.mean(dim=1).double()
    expected = []
    for support, query in zip(batch.pool.support, batch.pool.query, strict=True):
        prototypes = clips[support].mean(dim=1)
        for true, some in enumerate(query):
            for clip in some:
                scores = -(clips[clip] - prototypes).square().sum(dim=1)
                expected.append(cross_entropy(scores, true))
    assert losses.total.item() == pytest.approx(np.mean(expected), rel=1e-5)


# --- what is cached ---


def test_train_and_val_features_share_one_budget(store, monkeypatch):
    made = []

    class Spied(ClipFeatures):
        def __init__(self, *args, **settings):
            super().__init__(*args, **settings)
            made.append(self)

    monkeypatch.setattr("i2st_model.training.cached_learner.ClipFeatures", Spied)
    val_rows = store.rows_of(store.classes_of("val"))

    def kept(budget_bytes):
        made.clear()
        config = replace(SMALL, cache_gib=budget_bytes / 2**30)
        opened(store, config, val_rows)
        return [one.cached for one in made]

    assert kept(0) == [False, False]
    train, val = (one.size_bytes for one in made)
    assert train > val > 0
    assert kept(train + val) == [True, True]
    assert kept(train + val - 1) == [True, False]
    assert kept(train - 1) == [False, True]


@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_stored_features_are_the_stored_numbers_in_float32(store, budget):
    rows = store.rows_of(["train 1", "val 2"])
    some = rows[[9, 2, 2]]
    for name, side in (("tokens", 4), ("frame_embedding", 0)):
        features = ClipFeatures(
            store, StoredFeatures(store, name), rows, budget_bytes=budget, device=CPU
        )
        assert (features.cached, features.side) == (budget > 0, side)
        clips = features.clips(some)
        assert clips.dtype == torch.float32
        stored = getattr(store.reader, name)(some)
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(clips.numpy(), stored.astype(np.float64))


def test_stem_features_of_half_precision_tokens_are_computed_in_float32(store):
    network = build_untrained(SMALL, store)
    made = StemFeatures(store, network.stem, CPU).compute(3, 0)
    assert made.dtype == torch.float16
    tokens = torch.from_numpy(store.reader.tokens([3])[0]).double()
    stem = network.stem
    exact = (tokens - stem.mean.double()) @ stem.components.double()
    # Half a unit of float16 in the last place, and float32's own error.
    assert ((made.double() - exact).abs() <= exact.abs() * 2**-11 + 1e-5).all()


def test_cells_of_a_method_are_mirrored_with_their_clip_and_embeddings_are_not(store):
    config = replace(SMALL, method="cells", network={}, flips=True)
    _, batch = opened(store, config)
    plain = store.tokens(batch.pool.rows.ravel()).unflatten(2, (4, 4))
    seen = batch.seen.unflatten(2, (4, 4))
    flipped = [not torch.equal(one, two) for one, two in zip(seen, plain, strict=True)]
    assert 4 <= sum(flipped) <= 14  # of 18, half expected
    for one, two, mirrored in zip(seen, plain, flipped, strict=True):
        assert torch.equal(one, two.flip(2) if mirrored else two)
    _, batch = opened(store, replace(config, method="linear"))
    assert torch.equal(batch.seen, store.frame_embedding(batch.pool.rows.ravel()))


# --- frames ---


@pytest.fixture
def frames(tmp_path):
    ensure_torchvision()
    pytest.importorskip("timm")
    from i2st_model.end_to_end.open_store import open_store

    make_frame_shards(tmp_path / "toy", classes=(3, 2, 2), videos=2, frames=2)
    return open_store(tmp_path / "toy", encoder={"name": "efficientnet-lite0"}, device="cpu")


@pytest.fixture
def encoded(frames, monkeypatch):
    """Number of frames of each call to the encoder."""
    real, counts = frames.reader.encode, []
    monkeypatch.setattr(
        frames.reader, "encode", lambda r, p: counts.append(len(r) * p.shape[-1]) or real(r, p)
    )
    return counts


def test_means_and_samples_are_of_no_more_frames_than_may_be_encoded(frames, encoded, monkeypatch):
    rows = frames.rows_of(frames.classes_of("train"))
    every = frames.reader.frame_embedding(rows).astype(np.float64).mean(axis=(0, 1))
    found = frames.mean_embedding(rows)
    np.testing.assert_allclose(found.numpy(), every, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr("i2st_model.end_to_end.frame_store.MOST_FRAMES", 5)
    for read, count in (
        (lambda: frames.mean_embedding(rows), 5),
        (lambda: frames.embedding_sample(rows, seed=3, max_frames=50_000), 5),
        (lambda: frames.embedding_sample(rows, seed=3, max_frames=4), 4),
    ):
        encoded.clear()
        read()
        assert sum(encoded) == count


def test_a_network_that_reads_embeddings_beside_tokens_has_each_video_encoded_once(frames, encoded):
    rows = frames.rows_of(frames.classes_of("test"))
    plain = FeatureStore(frames.reader)  # encodes for the tokens, and again for the embeddings
    config = replace(SMALL, network={**NETWORK, "image_token": "embedding"}, way=3, queries=1)
    network = build_untrained(config, plain)
    method = get_method("i2st", network=network)
    encoded.clear()
    twice = prepare(method, plain, rows, EvaluateConfig(device="cpu")).tensors
    assert len(encoded) == 2
    encoded.clear()
    once = prepare(method, frames, rows, EvaluateConfig(device="cpu")).tensors
    assert len(encoded) == 1
    assert all(torch.equal(value, twice[name]) for name, value in once.items())
    encoded.clear()
    expected = mean_descriptor(network, plain, rows, device=CPU)
    assert torch.equal(mean_descriptor(network, frames, rows, device=CPU), expected)
    assert len(encoded) == 3
