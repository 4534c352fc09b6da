"""Trainable methods other than i2st: one example that is made up, and those that are built in."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_shards import make_shards
from test_training import SMALL
from test_training_faults import stop_at
from torch import nn

from i2st_model.checkpoints import load_checkpoint
from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.runs import CONFIG_NAME
from i2st_model.training.learners import build_learner
from i2st_model.training.run import train
from i2st_model.training.setup import NO_ROWS, pool_sampler
from pipeline.errors import ConfigError

PLAIN = replace(SMALL, network={})
TRAINED = replace(
    PLAIN, method="scaled", options={"start": 2.0}, episodes=64 * 12, select="last", fast_rate=0.1
)


class Scaled(FewShotMethod):
    """Prototypes of mean frames whose channels are scaled by trained factors."""

    name = "scaled"
    trainable = True

    def __init__(self, *, start=1.0):
        super().__init__()
        self.start = start

    def fit(self, train):
        self.factors = nn.Parameter(torch.full((train.embedding_dim,), self.start))

    def prepare(self, clips):
        return {"clip": clips.features.mean(dim=1) * self.factors}

    def score(self, support, query):
        prototypes = support["clip"].mean(dim=2)
        difference = query["clip"].unsqueeze(2) - prototypes.unsqueeze(1)
        return -difference.square().sum(dim=-1)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    from i2st_model import methods

    monkeypatch.setitem(methods.METHODS, "scaled", lambda: Scaled)


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """The first four channels say nothing of the class and are louder than all others."""
    folder = tmp_path_factory.mktemp("shards") / "toy"
    return FeatureStore(make_shards(folder, classes=(8, 5, 5), signal=4.0, nuisance=1.0))


def test_training_turns_down_channels_that_tell_nothing(noisy, tmp_path):
    report = train(TRAINED, noisy, tmp_path / "run")
    config = EvaluateConfig(episodes=500, device="cpu")
    method, checkpoint = load_method(
        "scaled", noisy, shards=noisy.reader.folder, run=report.run_folder
    )
    untrained = Scaled()
    untrained.factors = nn.Parameter(torch.ones(16))
    trained = evaluate(method, noisy, config, checkpoint=checkpoint).accuracy.mean
    assert trained > evaluate(untrained, noisy, config).accuracy.mean + 5
    factors = method.factors.detach().abs()
    assert factors[:4].max() < factors[4:].mean()
    info = checkpoint.info
    assert (info.method, info.options, info.network) == ("scaled", {"start": 2.0}, {})


def test_loss_of_a_method_is_the_cross_entropy_of_its_episodes(noisy):
    learner = build_learner(
        TRAINED, noisy, classes=pool_sampler(TRAINED, noisy).videos, device=torch.device("cpu")
    )
    learner.open(NO_ROWS)
    pool = pool_sampler(TRAINED, noisy).pool(0, 4)
    losses = learner.losses(learner.batch(pool, 0))
    rows = pool.rows.ravel()
    clips = 2.0 * noisy.frame_embedding(rows).double().mean(dim=1)
    expected = []
    for support, query in zip(pool.support, pool.query, strict=True):
        prototypes = clips[support].mean(dim=1)
        for true, of_class in enumerate(query):
            for clip in of_class:
                scores = -(clips[clip] - prototypes).square().sum(dim=1)
                expected.append(-scores.log_softmax(dim=0)[true].item())
    assert losses.parts["episode"].item() == pytest.approx(np.mean(expected), rel=1e-4)
    assert losses.total is losses.parts["episode"]


@pytest.mark.parametrize("needed", [True, False])
def test_fit_is_told_no_more_than_a_method_says_it_needs(noisy, monkeypatch, needed):
    told, means = [], []
    mean = noisy.mean_embedding
    monkeypatch.setattr(noisy, "mean_embedding", lambda rows: means.append(rows) or mean(rows))
    monkeypatch.setattr(Scaled, "needs_train_mean", needed)
    monkeypatch.setattr(Scaled, "uses_class_names", needed)
    real = Scaled.fit
    monkeypatch.setattr(Scaled, "fit", lambda self, train: told.append(train) or real(self, train))
    classes = pool_sampler(TRAINED, noisy).videos
    build_learner(TRAINED, noisy, classes=classes, device=torch.device("cpu"))
    (train_videos,) = means if needed else ([],)
    assert len(train_videos) == (8 * 8 if needed else 0)
    assert (told[0].mean_embedding is None) is not needed
    assert len(told[0].class_names) == (18 if needed else 0)


def test_a_baseline_that_centres_nothing_reads_no_train_video(noisy, monkeypatch):
    read = []
    mean = noisy.mean_embedding
    monkeypatch.setattr(noisy, "mean_embedding", lambda rows: read.append(len(rows)) or mean(rows))
    for name in ("bi_mhm:centre=false", "random", "bi_mhm"):
        load_method(name, noisy, shards=noisy.reader.folder)
    assert read == [8 * 8]


@pytest.mark.parametrize("method", ["hyrsm", "trx"])
def test_built_in_methods_train_and_come_back_as_they_were(noisy, tmp_path, method):
    options = {"trx": {"width": 16, "cardinalities": [2]}}.get(method, {})
    config = replace(PLAIN, method=method, options=options, episodes=32, episodes_per_step=8)
    first = train(config, noisy, tmp_path / "first")
    again = train(config, noisy, tmp_path / "again")
    weights = load_checkpoint(first.run_folder).weights
    for name, value in load_checkpoint(again.run_folder).weights.items():
        assert torch.equal(value, weights[name]), name
    loaded, _ = load_method(method, noisy, shards=noisy.reader.folder, run=first.run_folder)
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, weights[name]), name
    accuracy = evaluate(loaded, noisy, EvaluateConfig(episodes=20, device="cpu")).accuracy
    assert 0 < accuracy.mean <= 100


def test_methods_without_weights_and_unknown_options_are_refused(noisy, tmp_path):
    with pytest.raises(
        ConfigError, match="method protonet has no weights.*evaluate --method protonet"
    ):
        train(replace(PLAIN, method="protonet"), noisy, tmp_path / "run")
    with pytest.raises(ConfigError, match="no option .begin.; known: start"):
        train(replace(TRAINED, options={"begin": 2}), noisy, tmp_path / "run")
    with pytest.raises(ConfigError, match="method hyrsm has no run; trained weights were needed"):
        load_method("hyrsm", noisy, shards=noisy.reader.folder)


@pytest.mark.parametrize(
    ("unread", "name"),
    [
        ({"beta": 0.3}, "beta is a setting of i2st, which scaled does not read.* as 0.3"),
        ({"preset": "linear"}, "preset is a setting of i2st"),
        ({"network": {"dim": 128}}, "network.dim is a setting of i2st"),
    ],
)
def test_a_setting_that_the_method_does_not_read_is_refused_from_python(
    noisy, tmp_path, unread, name
):
    run = tmp_path / "run"
    with pytest.raises(ConfigError, match=name):
        train(replace(TRAINED, **unread), noisy, run)
    assert not run.exists()


def test_a_run_begun_before_unread_settings_were_refused_is_gone_on_with(noisy, tmp_path):
    run, config = tmp_path / "run", replace(TRAINED, episodes=128)
    with pytest.raises(KeyboardInterrupt):
        train(replace(config, state_every=1), noisy, run, on_progress=stop_at(2))
    recorded = json.loads((run / CONFIG_NAME).read_text())
    recorded["train"]["beta"] = 0.3
    (run / CONFIG_NAME).write_text(json.dumps(recorded))
    before = replace(config, state_every=1, beta=0.3)
    assert train(before, noisy, run, resume=True).resumed_at == 1


def test_encoding_in_bfloat16_changes_little_and_keeps_scores_in_float32(noisy, tmp_path):
    whole = train(replace(TRAINED, episodes=64), noisy, tmp_path / "fp32")
    half = train(replace(TRAINED, episodes=64, precision="bf16"), noisy, tmp_path / "bf16")
    network = train(replace(SMALL, episodes=64, precision="bf16"), noisy, tmp_path / "network")
    full = load_checkpoint(whole.run_folder).weights["factors"]
    short = load_checkpoint(half.run_folder).weights["factors"]
    assert short.dtype == torch.float32
    torch.testing.assert_close(short, full, atol=0.2, rtol=0)
    assert load_checkpoint(network.run_folder).weights["projection.weight"].dtype == torch.float32


def test_a_method_that_no_gradient_passes_is_refused(noisy, tmp_path, monkeypatch):
    real = Scaled.prepare
    monkeypatch.setattr(
        Scaled, "prepare", lambda self, clips: {"clip": real(self, clips)["clip"].detach()}
    )
    with pytest.raises(ConfigError, match="no gradient passes through method scaled"):
        train(TRAINED, noisy, tmp_path / "run")
