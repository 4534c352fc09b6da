"""Result files: the same bytes for the same evaluation, read back whole or refused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.numpy
from synthetic_shards import make_shards

from i2st_model.evaluating.episode_draws import draw_episodes
from i2st_model.evaluation import EvaluateConfig, evaluate, evaluate_sets
from i2st_model.features import FeatureStore
from i2st_model.load_method import load_method
from i2st_model.records.array_files import dump_arrays
from i2st_model.records.episode_files import load_episodes, save_episodes
from i2st_model.records.provenance import Provenance
from i2st_model.records.results import Result, load_results, save_results
from pipeline.errors import I2STError, RecordError

FEW = EvaluateConfig(episodes=40, shot=2, queries=3, device="cpu")
METHODS = ("protonet", "bi_mhm")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return FeatureStore(make_shards(tmp_path_factory.mktemp("shards") / "toy", signal=1.0))


@pytest.fixture(scope="module")
def results(store):
    """Two methods on two cells."""
    sets = [draw_episodes(store, config) for config in (FEW, replace(FEW, way=3, shot=1))]
    return [
        found.result
        for name in METHODS
        for found in evaluate_sets(
            load_method(name, store, shards="s", device="cpu")[0], store, sets, FEW
        )
    ]


def test_result_file_gives_back_every_part_and_shares_cells(results, tmp_path):
    sha = save_results(tmp_path / "r", results)
    assert sha == hashlib.sha256((tmp_path / "r").read_bytes()).hexdigest()
    read = load_results(tmp_path / "r")
    assert [one.made_by for one in read] == [one.made_by for one in results]
    for mine, theirs in zip(read, results, strict=True):
        np.testing.assert_array_equal(mine.predicted, theirs.predicted)
        np.testing.assert_array_equal(mine.per_episode, theirs.per_episode)
        assert mine.episodes.same_episodes(theirs.episodes)
        assert mine.episodes.video_ids == theirs.episodes.video_ids
    assert [one.made_by.method for one in read] == ["protonet"] * 2 + ["bi_mhm"] * 2
    assert read[0].episodes is read[2].episodes
    assert read[1].episodes is read[3].episodes
    arrays = safetensors.numpy.load_file(tmp_path / "r")
    assert {a.dtype for name, a in arrays.items() if name.startswith("pred")} == {np.dtype("u1")}


def test_predictions_say_what_is_right_by_hand(results):
    episodes = results[1].episodes
    right = np.broadcast_to(np.arange(3)[None, :, None], episodes.query.shape).copy()
    right[0, 1, 2] = 0
    found = Result(made_by=results[1].made_by, episodes=episodes, predicted=right)
    assert found.correct.sum() == 40 * 9 - 1
    assert found.per_episode[0] == pytest.approx(8 / 9)
    assert found.per_episode[1:].tolist() == [1.0] * 39


def test_sources_are_kept_where_clips_share_them(tmp_path):
    store = FeatureStore(make_shards(tmp_path / "toy", signal=1.0, group_size=2))
    method = load_method("protonet", store, shards="s", device="cpu")[0]
    direct = evaluate(method, store, FEW).result
    save_episodes(tmp_path / "e", direct.episodes)
    assert set(safetensors.numpy.load_file(tmp_path / "e")) == {"query", "support", "video_class"}
    (replayed,) = evaluate_sets(method, store, [load_episodes(tmp_path / "e")], FEW)
    sha = save_results(tmp_path / "r", [direct])
    assert save_results(tmp_path / "r", [replayed.result]) == sha
    unknown = replace(direct, video_source=None)
    save_results(tmp_path / "r", [unknown, direct])
    # Clips 00 and 01 of a class are of one source, and so on.
    names = [f"{one[:-2]}{int(one[-2:]) // 2}" for one in direct.episodes.video_ids]
    for one in (direct, *load_results(tmp_path / "r")):
        same = one.sources[:, None] == one.sources
        np.testing.assert_array_equal(same, np.array(names)[:, None] == names)
    save_results(tmp_path / "r", [unknown])
    assert load_results(tmp_path / "r")[0].video_source is None


def test_a_video_without_a_known_source_is_its_own(results):
    assert results[0].video_source is None
    assert results[0].sources.tolist() == list(range(40))


@pytest.mark.parametrize("name", ["protonet", "bi_mhm", "linear_probe", "random"])
def test_two_evaluations_and_a_replayed_episode_file_give_one_sha256(store, tmp_path, name):
    def saved(evaluation):
        return save_results(tmp_path / "r", [evaluation.result])

    def method():
        return load_method(name, store, shards="s", device="cpu")[0]

    first = saved(evaluate(method(), store, FEW))
    assert saved(evaluate(method(), store, FEW)) == first
    save_episodes(tmp_path / "e", draw_episodes(store, FEW))
    (replayed,) = evaluate_sets(
        method(), store, [load_episodes(tmp_path / "e")], EvaluateConfig(device="cpu")
    )
    assert saved(replayed) == first
    assert replayed.to_json() == evaluate(method(), store, FEW).to_json()
    assert saved(evaluate(method(), store, replace(FEW, seed=1))) != first


def test_results_refuse_predictions_of_other_episodes(results):
    one = results[0]
    with pytest.raises(ValueError, match="are not those of queries"):
        replace(one, predicted=one.predicted[:-1])
    with pytest.raises(ValueError, match="a prediction lies outside 0 .. 4"):
        replace(one, predicted=np.full_like(one.predicted, 5))


def parts(results, tmp_path):
    save_results(tmp_path / "r", results)
    data = (tmp_path / "r").read_bytes()
    length = int.from_bytes(data[:8], "little")
    values = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["i2st"])["values"]
    return values, {name: array.copy() for name, array in safetensors.numpy.load(data).items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda v, a: v.update(format="i2st-episodes"),
            "format 'i2st-episodes' version 1, not i2s",
        ),
        (lambda v, a: v.update(results=[]), "it lists no results"),
        (lambda v, a: v.update(cells={}), "it lists no results"),
        (lambda v, a: v["results"].append(3), "it lists no results"),
        (lambda v, a: v["results"][1].update(cell=2), "lacks its episodes or predictions"),
        (lambda v, a: v["results"][1].update(cell=True), "lacks its episodes or predictions"),
        (lambda v, a: v["results"][1].pop("method"), "the method of a result is None"),
        (lambda v, a: v["results"][1].update(train_seed="0"), "the train_seed of a result is '0'"),
        (lambda v, a: v["results"][1].update(frames=True), "the frames of a result is True"),
        (lambda v, a: v["results"][1].update(frames=0), "frames=0; clips have at least one"),
        (lambda v, a: v["results"][1].update(encoder_run=1), "the encoder_run of a result is 1"),
        (lambda v, a: v["cells"][1].update(seed=1.5), "its seed is 1.5"),
        (lambda v, a: a.pop("predicted/3"), "lacks its episodes or predictions"),
        (lambda v, a: a.pop("cells/1/query"), "its query is absent"),
        (lambda v, a: a.update({"predicted/3": a["predicted/0"]}), "are not those of queries"),
        (lambda v, a: a["predicted/3"].fill(3), "a prediction lies outside 0 .. 2"),
        (
            lambda v, a: a.update({"cells/1/video_source": np.zeros(39, np.uint8)}),
            r"40 videos have sources of shape \(39,\)",
        ),
        (
            lambda v, a: a.update({"cells/1/video_source": np.full(40, 40, np.uint8)}),
            "a source number lies outside 0 .. 39",
        ),
    ],
)
def test_files_that_contradict_themselves_are_refused_though_sealed(
    results, tmp_path, spoil, message
):
    values, arrays = parts(results, tmp_path)
    spoil(values, arrays)
    (tmp_path / "r").write_bytes(dump_arrays(arrays, values))
    with pytest.raises(RecordError, match=message):
        load_results(tmp_path / "r")


def test_fuzzed_files_are_refused(results, tmp_path):
    save_results(tmp_path / "r", results)
    good = (tmp_path / "r").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        bad = bytearray(good)
        start, length = int(rng.integers(len(bad))), int(rng.integers(1, 50))
        bad[start : start + length] = rng.bytes(int(rng.integers(50)))
        (tmp_path / "r").write_bytes(bad)
        if bad != good:
            with pytest.raises(I2STError) as refused:
                load_results(tmp_path / "r")
            assert refused.value.exit_code == 4


def test_provenance_of_a_method_without_training(results):
    made_by = results[0].made_by
    assert made_by == Provenance(
        method="protonet",
        uses_class_names=False,
        digest=results[0].episodes.digest,
        precision="float32",
        frames=4,
    )


def test_files_from_before_frames_were_kept_are_read(results, tmp_path):
    values, arrays = parts(results, tmp_path)
    for said in values["results"]:
        for name in ("frames", "encoder_run", "encoder_sha256"):
            del said[name]
    (tmp_path / "r").write_bytes(dump_arrays(arrays, values))
    made_by = load_results(tmp_path / "r")[0].made_by
    assert made_by == replace(results[0].made_by, frames=None)
    assert made_by.seen() == "an unknown number of frames"


def test_what_a_method_saw_is_told_apart_by_frames_and_encoder(results):
    made_by = replace(results[0].made_by, checkpoint_sha256="a" * 64)
    assert made_by.seen() == "4 frames"
    own = replace(made_by, encoder_run="r", encoder_sha256="a" * 64)
    assert own.seen() == "4 frames by its own encoder"
    other = replace(own, encoder_sha256="b" * 64)
    assert other.seen() == "4 frames by the encoder of run r (bbbbbbbb)"
