"""I2ST as a method: how a trained run is read, by its own matching or by a probe."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic_shards import make_shards
from typer.testing import CliRunner

import cli
from benchmarks.jhmdb21.running import other_head
from i2st_model.config import preset
from i2st_model.evaluating.method_runs import is_trained
from i2st_model.evaluating.run_choice import choose_method_runs
from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.methods import get_method, linear_probe
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.network import build_network
from i2st_model.records.results import load_results
from i2st_model.training.config import TrainConfig
from i2st_model.training.run import train
from pipeline.errors import ConfigError
from pipeline.shards.reader import ShardReader

PROBED = "i2st:head=probe"
NETWORK = {"dim": 16, "heads": 2, "mask_width": 8, "num_instances": 2, "perception_layers": 1}
SETTINGS = {"episodes": 128, "network": NETWORK, "select": "last", "device": "cpu"}
FEW = ["--episodes", "60"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folder with shards and the run of one network."""
    folder = tmp_path_factory.mktemp("place")
    make_shards(folder / "shards" / "toy", signal=1.0)
    store = FeatureStore(ShardReader(folder / "shards" / "toy"))
    train(TrainConfig(**SETTINGS), store, folder / "runs" / "a")
    return folder


@pytest.fixture
def store(place):
    return FeatureStore(ShardReader(place / "shards" / "toy"))


def loaded(name, place, store, run="a", **options):
    shards = place / "shards" / "toy"
    run = place / "runs" / run
    return load_method(name, store, shards=shards, run=run, device="cpu", **options)


def mean_of(network, store, classes):
    """Mean local descriptor, video by video and frame by frame, in float64."""
    frames = [
        frame.double()
        for row in store.rows_of(list(classes))
        for frame in network.describe(store.tokens(np.array([row])))["local"][0]
    ]
    return sum(frames) / len(frames)


def test_probe_scores_as_a_linear_probe_on_centred_local_descriptors(place, store):
    method, checkpoint = loaded(PROBED, place, store)
    network = loaded("i2st", place, store)[0].network
    plain = get_method("linear_probe")
    mean = mean_of(network, store, store.classes_of("train"))
    plain.fit(TrainStatistics(embedding_dim=16, mean_embedding=mean.float()))
    rows = store.rows_of(store.classes_of("test")[:3])[:20]
    tokens = store.tokens(rows)
    found = method.prepare(Clips(features=tokens))
    expected = plain.prepare(Clips(features=network.describe(tokens)["local"]))
    assert set(found) == {"clip"}
    torch.testing.assert_close(found["clip"], expected["clip"], atol=1e-5, rtol=1e-5)
    support, query = torch.arange(12).view(1, 3, 4), torch.arange(12, 20).view(1, 8)
    scores = [
        one.score({"clip": kept["clip"][support]}, {"clip": kept["clip"][query]})
        for one, kept in ((method, found), (plain, expected))
    ]
    torch.testing.assert_close(*scores, atol=1e-4, rtol=1e-4)
    assert method.name == PROBED
    assert checkpoint.path == place / "runs" / "a" / "checkpoint.safetensors"
    assert not any((method.classes_apart, method.shots_apart, method.averages_shots))


def test_probe_is_centred_on_the_classes_that_its_run_saw(place, store):
    seen = store.classes_of("train")[:5]
    config = TrainConfig(**SETTINGS, classes=tuple(seen), way=4, val_classes=())
    train(config, store, place / "other" / "b")
    method, _ = loaded(PROBED, place, store, run="../other/b")
    own = mean_of(method.network, store, seen)
    torch.testing.assert_close(method.probe.train_mean.double(), own, atol=1e-5, rtol=1e-5)
    told, _ = loaded(PROBED, place, store, run="../other/b", mean_classes=seen[:2])
    own = mean_of(method.network, store, seen[:2])
    torch.testing.assert_close(told.probe.train_mean.double(), own, atol=1e-5, rtol=1e-5)


def test_probe_on_another_dataset_is_centred_on_that_ones_train_split(place, store):
    folder = place / "elsewhere"
    other = FeatureStore(make_shards(folder, name="elsewhere", classes=(8, 5, 5), seed=7))
    method, _ = load_method(PROBED, other, shards=folder, run=place / "runs" / "a", device="cpu")
    own = mean_of(method.network, other, other.classes_of("train"))
    torch.testing.assert_close(method.probe.train_mean.double(), own, atol=1e-5, rtol=1e-5)
    bare = place / "bare"
    store = FeatureStore(make_shards(bare, name="bare", classes=(0, 0, 5), seed=8))
    with pytest.raises(ConfigError, match="bare holds no train video; i2st:head=probe is centred"):
        load_method(PROBED, store, shards=bare, run=place / "runs" / "a", device="cpu")


def test_probe_takes_its_regularisation_and_needs_to_be_one():
    network = build_network(preset("i2st", token_dim=8, grid=2, dim=8, heads=2, mask_width=4))
    strong = get_method(f"{PROBED}:regularisation=10", network=network)
    assert strong.probe.regularisation == 10
    weak = get_method(PROBED, network=network)
    assert weak.probe.regularisation == get_method("linear_probe").regularisation == 0.1
    with pytest.raises(
        ConfigError, match=r"head='matching', which reads none.*; write (\S+)$"
    ) as e:
        get_method("i2st:regularisation=10", network=network)
    assert get_method(str(e.value).split()[-1], network=network).probe.regularisation == 10
    with pytest.raises(ConfigError, match="head='knn' is unknown; one of matching, probe"):
        get_method("i2st:head=knn", network=network)
    with pytest.raises(ConfigError, match="regularisation=0; a number above 0"):
        get_method(f"{PROBED}:regularisation=0", network=network)


def test_what_the_probe_warns_of_can_be_typed(monkeypatch, caplog):
    network = build_network(preset("i2st", token_dim=8, grid=2, dim=8, heads=2, mask_width=4))
    method = get_method(PROBED, network=network)
    method.centre_on(torch.zeros(8))
    clips = method.prepare(Clips(features=torch.randn(6, 3, 4, 8)))["clip"]
    monkeypatch.setattr(linear_probe, "MAX_STEPS", 2)
    method.score({"clip": clips.view(1, 3, 2, 8)}, {"clip": clips[None]})
    (hint,) = re.findall(r"e\.g\. (\S+)", caplog.records[0].getMessage())
    assert get_method(hint, network=network).probe.regularisation == 1


def test_options_that_say_how_a_run_is_read_stand_behind_a_trained_method(place):
    assert is_trained(PROBED)
    (chosen,) = choose_method_runs([PROBED], [], root=place / "runs")
    assert (chosen.method, chosen.run) == (PROBED, place / "runs" / "a")
    both = choose_method_runs(["i2st", PROBED], [place / "runs" / "a"], root=place)
    assert [(one.method, one.run.name) for one in both] == [("i2st", "a"), (PROBED, "a")]
    with pytest.raises(ConfigError, match="name alone or head, regularisation behind it was need"):
        is_trained("i2st:dim=8")
    with pytest.raises(ConfigError, match="has options, .*the name alone was needed; pass --meth"):
        is_trained("trx:head=probe")
    with pytest.raises(ConfigError, match="head='knn' is unknown"):
        is_trained("i2st:head=knn")


def test_both_heads_of_a_run_stand_in_one_table_and_are_compared(place, monkeypatch, tmp_path):
    monkeypatch.chdir(place)
    methods = ["--method", f"i2st,{PROBED}", "--shot", "3"]
    kept = (place / "runs" / "a" / "checkpoint.safetensors").read_bytes()
    done = CliRunner().invoke(cli.app, ["evaluate", *methods, *FEW, "--save", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    assert (place / "runs" / "a" / "checkpoint.safetensors").read_bytes() == kept
    plain, probed = load_results(tmp_path / "r")
    assert [plain.made_by.method, probed.made_by.method] == ["i2st", PROBED]
    assert plain.made_by.checkpoint_sha256 == probed.made_by.checkpoint_sha256
    assert not np.array_equal(plain.predicted, probed.predicted)
    done = CliRunner().invoke(cli.app, ["compare", PROBED, "i2st", "--shot", "3", *FEW])
    assert done.exit_code == 0, done.output
    difference = 100 * (probed.per_episode.mean() - plain.per_episode.mean())
    assert f"{difference:+.2f}" in done.stdout


def test_benchmark_reads_a_run_by_the_same_heads(place, store):
    def job(method):
        names = {"variant": {"method": method}, "split": {"train": store.classes_of("train")}}
        parts = {name: SimpleNamespace(**values) for name, values in names.items()}
        base = SimpleNamespace(run_folder=place / "runs" / "a")
        return SimpleNamespace(shards=place / "shards" / "toy", base=base, **parts)

    asked = EvaluateConfig(episodes=40, shot=2, device="cpu")
    probed, (alone, _) = loaded(PROBED, place, store)[0], other_head(job("probe"), store)
    found = [evaluate(one, store, asked).result.predicted for one in (probed, alone)]
    np.testing.assert_array_equal(*found)
    both, _ = other_head(job("both"), store)
    tokens = store.tokens(store.rows_of(store.classes_of("test"))[:20])
    support, query = torch.arange(12).view(1, 3, 4), torch.arange(12, 20).view(1, 8)
    shares = []
    for one in (both, loaded("i2st", place, store)[0], probed):
        kept = one.prepare(Clips(features=tokens, embedding=None))
        parts = [{name: value[rows] for name, value in kept.items()} for rows in (support, query)]
        shares.append(one.score(*parts).double().log_softmax(dim=2))
    torch.testing.assert_close(shares[0], (shares[1] + shares[2]).log_softmax(dim=2))


def test_float64_changes_no_accuracy_of_the_probe(place, store):
    method, checkpoint = loaded(PROBED, place, store)
    found = [
        evaluate(
            method,
            store,
            EvaluateConfig(episodes=40, precision=precision, device="cpu"),
            checkpoint=checkpoint,
        ).accuracy.mean
        for precision in ("float32", "float64")
    ]
    assert found[0] == found[1]


def test_preparing_clips_makes_no_masks():
    settings = {"instances": "queries", "dim": 8, "heads": 2, "mask_width": 4}
    network = build_network(preset("i2st", token_dim=8, grid=2, **settings))
    network.perception.decoder.forward = network.perception.decoder.union = None
    method = get_method("i2st", network=network)
    assert method.prepare(Clips(features=torch.randn(2, 3, 4, 8)))["local"].shape == (2, 3, 8)
