import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_shards import FINGERPRINT, make_shards

from i2st_model.checkpoints import load_checkpoint
from i2st_model.drawing.class_videos import group_videos
from i2st_model.episodes import EpisodeSampler
from i2st_model.evaluating.episode_draws import draw_episodes
from i2st_model.evaluating.evaluated import per_class_accuracy
from i2st_model.evaluating.scoring import PREPARE_VIDEOS, prepare_videos
from i2st_model.evaluation import EvaluateConfig, evaluate, evaluate_sets
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.methods import METHODS
from i2st_model.methods.protonet import ProtoNet
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.provenance import Provenance
from i2st_model.records.results import Result
from i2st_model.statistics import paired_difference
from i2st_model.training.config import TrainConfig
from i2st_model.training.run import train
from pipeline.errors import BackendError, ConfigError
from pipeline.shards.reader import ShardReader

NETWORK = {"dim": 16, "heads": 2, "mask_width": 8, "num_instances": 2, "perception_layers": 1}
TRAIN = TrainConfig(episodes=128, network=NETWORK, select="last", stem_tokens=2000, device="cpu")
FEW = EvaluateConfig(episodes=60, shot=2, queries=3, device="cpu")
BASELINES = ["protonet", "simpleshot", "linear_probe", "otam", "bi_mhm"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "toy"
    make_shards(folder, signal=2.0, group_size=2)
    return folder


@pytest.fixture(scope="module")
def store(shards):
    return FeatureStore(ShardReader(shards))


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    return train(TRAIN, store, tmp_path_factory.mktemp("runs") / "run").run_folder


def method_of(name, store, shards, run):
    return load_method(name, store, shards=shards, run=run, device="cpu")


# --- values ---


@pytest.mark.parametrize("name", BASELINES)
def test_separable_features_give_100_and_noise_gives_chance(tmp_path, name):
    easy = FeatureStore(make_shards(tmp_path / "easy", signal=200.0, videos=6))
    method, _ = load_method(name, easy, shards=tmp_path, device="cpu")
    assert evaluate(method, easy, replace(FEW, episodes=200)).accuracy.mean == 100.0
    noise = FeatureStore(make_shards(tmp_path / "noise", signal=0.0, videos=60, channels=8))
    method, _ = load_method(name, noise, shards=tmp_path, device="cpu")
    accuracy = evaluate(method, noise, EvaluateConfig(episodes=2000, device="cpu")).accuracy
    # 300 videos hold some luck of their own, which the interval over episodes leaves out.
    assert abs(accuracy.mean - 20.0) < 2.0
    assert 0.5 < accuracy.half_width < 1.0  # binomial: 196 sqrt(.2 x .8 / 5 / 2000) = 0.78


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def simpleshot_scores(query, support):
    def clip(frames):
        return unit(frames.mean(axis=0))

    prototypes = [np.mean([clip(shot) for shot in shots], axis=0) for shots in support]
    return [-np.sum((clip(query) - prototype) ** 2) for prototype in prototypes]


def bi_mhm_scores(query, support):
    scores = []
    for shots in support:
        cost = 1 - unit(query) @ unit(np.mean(shots, axis=0)).T
        scores.append(-cost.min(axis=1).mean() - cost.min(axis=0).mean())
    return scores


@pytest.mark.parametrize(
    ("name", "scores_of"), [("simpleshot", simpleshot_scores), ("bi_mhm", bi_mhm_scores)]
)
@pytest.mark.parametrize("disjoint", [False, True])
def test_batched_evaluation_equals_a_float64_loop_over_episodes(
    store, shards, name, scores_of, disjoint
):
    reader = store.reader
    frames = reader.frame_embedding(np.arange(reader.num_videos)).astype(np.float64)
    frames -= frames[reader.split == "train"].mean(axis=(0, 1))
    test_classes = range(11, 16)
    videos = group_videos(reader.class_index, reader.groups, test_classes, reader.class_names)
    sampler = EpisodeSampler(videos, way=5, shot=2, queries=3, disjoint_groups=disjoint)
    expected = []
    for number in range(60):
        episode = sampler.episode(number)
        right = [
            int(np.argmax(scores_of(frames[row], frames[episode.support]))) == true
            for true, rows in enumerate(episode.query)
            for row in rows
        ]
        expected.append(np.mean(right))
    method, _ = load_method(name, store, shards=shards, device="cpu")
    found = evaluate(method, store, replace(FEW, disjoint_groups=disjoint))
    np.testing.assert_allclose(found.per_episode, expected, atol=1e-12)
    assert found.accuracy.mean == pytest.approx(100 * np.mean(expected))
    spread = np.std(expected, ddof=1)
    assert found.accuracy.half_width == pytest.approx(196 * spread / 60**0.5)


def test_trained_network_gives_the_same_predictions_one_clip_and_episode_at_a_time(
    store, shards, run
):
    method, checkpoint = method_of("i2st", store, shards, run)
    found = evaluate(method, store, FEW, checkpoint=checkpoint)
    network = method.network.double()
    videos = group_videos(
        store.reader.class_index, store.reader.groups, range(11, 16), store.reader.class_names
    )
    sampler = EpisodeSampler(videos, way=5, shot=2, queries=3)

    def clip(row):
        return network.describe(store.tokens(np.array([row])).double())

    with torch.no_grad():
        for number in range(20):
            episode = sampler.episode(number)
            support = [[clip(row) for row in rows] for rows in episode.support]
            classes = {
                key: torch.stack([torch.cat([one[key] for one in shots]) for shots in support])
                for key in ("local", "global")
            }
            for n, rows in enumerate(episode.query):
                for i, row in enumerate(rows):
                    query = {key: value[None] for key, value in clip(row).items()}
                    scores = network.logits(query, {k: v[None] for k, v in classes.items()})
                    assert found.result.predicted[number, n, i] == scores[0, 0].argmax()


@pytest.mark.parametrize("name", [*BASELINES, "i2st"])
def test_predictions_are_the_same_for_every_batch_size_and_twice(store, shards, run, name):
    method, _ = method_of(name, store, shards, run)
    results = [
        evaluate(method, store, replace(FEW, batch_episodes=size))
        for size in (None, None, 60, 1, 7, 500)
    ]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0].result.predicted, other.result.predicted)
        assert other.to_json() == results[0].to_json()


def test_per_class_accuracy_by_hand():
    # Two 2-way episodes with two queries: class 3 right 2 + 1 of 4, class 1 right 0 of 2.
    first = np.array([[[0], [4]], [[8], [0]]])  # classes 3 and 1, 2 and 3
    episodes = EpisodeSet(
        dataset="toy",
        digest="0",
        split="test",
        seed=0,
        disjoint_groups=False,
        dropped_classes=(),
        class_names=("never", "one", "two", "three"),
        video_ids=tuple(f"{number:02d}" for number in range(12)),
        video_class=np.repeat([3, 1, 2], 4),
        support=first,
        query=first + [1, 2],
    )
    made_by = Provenance(method="m", uses_class_names=False, digest="0", precision="float32")
    predicted = np.array([[[0, 0], [0, 0]], [[0, 1], [1, 0]]])
    result = Result(made_by=made_by, episodes=episodes, predicted=predicted)
    assert per_class_accuracy(result) == {"one": 0.0, "two": 50.0, "three": 75.0}


def test_mean_of_classes_weighs_up_to_the_mean_of_episodes(store, shards):
    method, _ = load_method("bi_mhm", store, shards=shards, device="cpu")
    found = evaluate(method, store, FEW)
    # Five ways of five classes: every class is in every episode.
    assert np.mean(list(found.per_class.values())) == pytest.approx(found.accuracy.mean)
    assert sorted(found.per_class) == [f"test {number}" for number in range(5)]


def test_videos_are_prepared_once_in_calls_of_one_size():
    calls = []

    def prepare(rows):
        calls.append(rows)
        return {"x": torch.from_numpy(rows * 10)}

    rows = np.arange(3, 3 + 2 * PREPARE_VIDEOS + 1)
    assert prepare_videos(rows, prepare)["x"].tolist() == (rows * 10).tolist()
    assert [len(call) for call in calls] == [PREPARE_VIDEOS] * 3


# --- what is reported ---


def test_json_has_the_documented_keys(store, shards, run):
    method, checkpoint = method_of("i2st", store, shards, run)
    values = json.loads(json.dumps(evaluate(method, store, FEW, checkpoint=checkpoint).to_json()))
    documented = "method dataset split way shot queries episodes seed accuracy half_width digest"
    for key in [*documented.split(), "checkpoint"]:
        assert key in values
    assert (values["method"], values["dataset"], values["split"]) == ("i2st", "toy", "test")
    assert (values["way"], values["shot"], values["queries"], values["episodes"]) == (5, 2, 3, 60)
    assert values["digest"] == store.index.digest
    assert values["checkpoint"] == str(run / "checkpoint.safetensors")


def test_progress_counts_episodes(store, shards):
    method, _ = load_method("protonet", store, shards=shards, device="cpu")
    seen = []
    evaluate(method, store, replace(FEW, batch_episodes=25), on_progress=seen.append)
    assert [(one.episodes, one.num_episodes) for one in seen] == [(25, 60), (50, 60), (60, 60)]


def test_methods_meet_the_same_episodes(store, shards):
    first, second = (
        evaluate(load_method(name, store, shards=shards, device="cpu")[0], store, FEW)
        for name in ("protonet", "bi_mhm")
    )
    np.testing.assert_array_equal(first.result.episodes.classes, second.result.episodes.classes)
    difference = paired_difference(first.per_episode, second.per_episode)
    assert difference.mean == pytest.approx(first.accuracy.mean - second.accuracy.mean)
    other = evaluate(
        load_method("protonet", store, shards=shards, device="cpu")[0], store, replace(FEW, seed=1)
    )
    assert not np.array_equal(first.result.episodes.classes, other.result.episodes.classes)


# --- refusals ---


def test_evaluation_refuses_more_than_the_split_holds(store, shards):
    method, _ = load_method("protonet", store, shards=shards, device="cpu")
    message = "split 'test' of toy has 5 classes, way=6 needs 6; lower way"
    with pytest.raises(ConfigError, match=message):
        evaluate(method, store, replace(FEW, way=6))
    message = r"'test 0' of split 'test' of toy has 8 videos, shot=8 \+ queries=3 needs 11"
    with pytest.raises(ConfigError, match=message):
        evaluate(method, store, replace(FEW, shot=8))
    evaluate(method, store, replace(FEW, shot=5))  # the hint works


def test_evaluation_on_classes_that_were_trained_on_is_refused(store, shards, run):
    method, checkpoint = method_of("i2st", store, shards, run)
    with pytest.raises(ConfigError, match="6 of 6 evaluated classes were trained on by.*'train 0'"):
        evaluate(method, store, replace(FEW, split="train"), checkpoint=checkpoint)
    mixed = ("train 3", "test 0", "test 1", "test 2", "test 3")
    with pytest.raises(ConfigError, match="1 of 5 evaluated classes were trained on"):
        evaluate(method, store, replace(FEW, classes=mixed), checkpoint=checkpoint)
    chosen = ("val 3", "test 0", "test 1", "test 2", "test 3")
    found = evaluate(method, store, replace(FEW, classes=chosen), checkpoint=checkpoint)
    assert set(found.per_class) == set(chosen)


def test_network_may_be_used_on_another_dataset_of_the_same_features(tmp_path, run):
    other = make_shards(tmp_path / "s", name="other", classes=(0, 0, 6), seed=3)
    other.class_names[:] = [f"foreign {n}" for n in range(6)]
    other.index.dataset["classes"]["test"] = list(other.class_names)
    store = FeatureStore(other)
    method, checkpoint = load_method("i2st", store, shards=tmp_path, run=run, device="cpu")
    found = evaluate(method, store, FEW, checkpoint=checkpoint)
    assert (found.dataset, checkpoint.info.dataset) == ("other", "toy")
    with pytest.raises(ConfigError, match="holds no train video; otam is centred on their"):
        load_method("otam", store, shards=tmp_path, device="cpu")


def test_network_is_refused_on_other_features(tmp_path, run):
    fingerprint = {**FINGERPRINT, "encoder": {"name": "other", "sha256": "0"}}
    store = FeatureStore(make_shards(tmp_path / "s", fingerprint=fingerprint))
    message = r"encoder 'synthetic' there and 'other' here.*extract with the same"
    with pytest.raises(ConfigError, match=message):
        load_method("i2st", store, shards=tmp_path / "s", run=run)


def test_network_takes_the_frames_it_was_trained_on(store, shards, tmp_path):
    half = FeatureStore(store.reader, num_frames=2)
    run = train(replace(TRAIN, frames=2, episodes=64), half, tmp_path / "run").run_folder
    with pytest.raises(ConfigError, match="trained on clips of 2 frames, these have 4"):
        load_method("i2st", store, shards=shards, run=run)
    load_method("i2st", half, shards=shards, run=run)


def test_i2st_without_a_run_and_unknown_methods_are_refused(store, shards):
    with pytest.raises(ConfigError, match="method i2st has no run.*pass --run"):
        load_method("i2st", store, shards=shards)
    with pytest.raises(BackendError, match=r"'trx9' \(did you mean 'trx'\?\); known: bi_mhm"):
        load_method("trx9", store, shards=shards)


def test_a_run_of_another_method_is_refused(store, shards, run):
    with pytest.raises(ConfigError, match=r"is a run of i2st; one of trx was needed; pass another"):
        load_method("trx", store, shards=shards, run=run)


def test_results_name_the_run_that_a_link_leads_to(store, shards, run, tmp_path):
    (tmp_path / "latest").symlink_to(run, target_is_directory=True)
    method, checkpoint = load_method("i2st", store, shards=shards, run=tmp_path / "latest")
    found = evaluate(method, store, replace(FEW, episodes=2), checkpoint=checkpoint)
    assert found.result.made_by.run == run.name != "latest"


class Curious(ProtoNet):
    """Keeps whatever it is told of classes."""

    def fit(self, train):
        self.names = train.class_names

    def prepare(self, clips):
        self.told = clips.classes
        return super().prepare(clips)


class Marked(Curious):
    """The same, marked in reports."""

    uses_class_names = True


@pytest.mark.parametrize("build", [Curious, Marked])
def test_class_names_and_classes_are_for_marked_methods_alone(store, shards, monkeypatch, build):
    monkeypatch.setitem(METHODS, "curious", lambda: build)
    method, _ = load_method("curious", store, shards=shards, device="cpu")
    found = evaluate(method, store, replace(FEW, episodes=2))
    assert bool(method.names) == (method.told is not None) == method.uses_class_names
    assert ("(knows the names of these classes)" in found.sentence()) == method.uses_class_names


def test_every_set_of_episodes_is_searched_for_what_training_saw(store, run):
    method, checkpoint = load_method("i2st", store, shards=run, run=run, device="cpu")
    sets = [draw_episodes(store, replace(FEW, episodes=2, split=s)) for s in ("test", "train")]
    with pytest.raises(ConfigError, match=r"evaluated classes were trained on"):
        evaluate_sets(method, store, sets, FEW, checkpoint=checkpoint)


def test_baseline_mean_can_come_from_given_classes(store, shards):
    names = ["train 1", "val 2"]
    method, _ = load_method("otam", store, shards=shards, mean_classes=names, device="cpu")
    rows = store.rows_of(names)
    expected = store.reader.frame_embedding(rows).astype(np.float64).mean(axis=(0, 1))
    np.testing.assert_allclose(method.train_mean.numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "value"), [("episodes", 1), ("batch_episodes", 0)])
def test_senseless_settings_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"{name}={value}"):
        EvaluateConfig(**{name: value})


def test_checkpoint_weights_are_those_that_are_evaluated(store, shards, run):
    method, checkpoint = method_of("i2st", store, shards, run)
    stored = load_checkpoint(run).weights
    for key, value in method.network.state_dict().items():
        assert torch.equal(value, stored[key])
    assert checkpoint.path == run / "checkpoint.safetensors"
