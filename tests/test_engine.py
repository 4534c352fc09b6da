"""The engine against loops: whatever is gathered, tabled, averaged or padded, the same scores."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from synthetic_shards import make_shards
from torch import nn

from i2st_model.config import preset
from i2st_model.evaluating import engine
from i2st_model.evaluating.engine import PreparedVideos, predict
from i2st_model.evaluating.episode_draws import draw_episodes
from i2st_model.evaluating.pair_tables import pair_table, table_pays
from i2st_model.evaluating.scoring import prepare_videos
from i2st_model.evaluation import EvaluateConfig, evaluate, evaluate_sets, prepare
from i2st_model.features import FeatureStore
from i2st_model.load_method import train_statistics
from i2st_model.matching import unit
from i2st_model.methods import METHODS as BUILT_IN
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips
from i2st_model.network import build_network
from i2st_model.records.episode_checks import rows_of

FEW = EvaluateConfig(episodes=50, shot=3, queries=2, device="cpu")
METHODS = [
    ("protonet", {}),
    ("simpleshot", {}),
    ("linear_probe", {}),
    ("otam", {}),
    ("otam", {"shots": "after_matching"}),
    ("bi_mhm", {}),
    ("bi_mhm", {"shots": "after_matching"}),
    ("hyrsm", {}),
    ("trx", {}),
    ("clip_zero_shot", {}),
    ("i2st", {}),
    ("i2st:head=probe", {}),
    ("random", {}),
]
NETWORK = {"dim": 16, "heads": 2, "mask_width": 8, "num_instances": 2, "perception_layers": 1}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards") / "toy"
    return FeatureStore(make_shards(folder, signal=1.0, videos=12))


def built(store, name, options):
    torch.manual_seed(0)
    if name.startswith("i2st"):
        options = {"network": build_network(preset("i2st", token_dim=16, grid=4, **NETWORK))}
    method = get_method(name, **options)
    if name == "clip_zero_shot":  # shards have no class names that a text tower could read
        method.scale = 100.0
        method.register_buffer("texts", unit(torch.randn(len(store.reader.class_names), 16)))
    elif name == "i2st:head=probe":
        method.centre_on(torch.randn(16))
    else:
        method.fit(train_statistics(store, store.rows_of(store.classes_of("train"))))
    for parameter in method.parameters():  # some start at zero, which would hide a part
        nn.init.normal_(parameter, std=0.2)
    return method.eval()


@torch.no_grad()
def loop_scores(method, store, episodes, dtype):
    """(E, Q, N): one episode at a time, every clip of it prepared anew, as public code does."""
    method = method.to(dtype)
    rows = rows_of(episodes, store)
    read = store.tokens if method.needs == "tokens" else store.frame_embedding
    classes = torch.from_numpy(store.reader.class_index)

    def clips(places):
        return method.prepare(
            Clips(
                features=read(rows[places]).to(dtype),
                embedding=store.frame_embedding(rows[places]).to(dtype),
                classes=classes[rows[places]] if method.uses_class_names else None,
                videos=torch.from_numpy(rows[places]),
            )
        )

    scores = []
    for support, query in zip(episodes.support, episodes.query, strict=True):
        own = {
            name: v.unflatten(0, support.shape)[None] for name, v in clips(support.ravel()).items()
        }
        asked = {name: v[None] for name, v in clips(query.ravel()).items()}
        scores.append(method.score(own, asked)[0])
    return torch.stack(scores)


def engine_scores(method, store, episodes, config, monkeypatch):
    """Scores that the engine takes the best of, caught on their way."""
    caught = []
    plain = engine._one_batch

    def catch(scores, *rest):
        def kept(support, query):
            caught.append(scores(support, query))
            return caught[-1]

        found = plain(kept, *rest)
        caught[-1] = caught[-1][: len(found)]
        return found

    monkeypatch.setattr(engine, "_one_batch", catch)
    rows = rows_of(episodes, store)
    prepared = prepare(method, store, np.unique(rows), config)
    predicted = predict(prepared, episodes, rows, batch_episodes=config.batch_episodes)
    return torch.cat(caught), predicted


def compared(method, store, config, monkeypatch):
    """Scores of the engine and of the loop, and whether each query has one answer by both."""
    dtype = getattr(torch, config.precision)
    episodes = draw_episodes(store, config)
    scores, predicted = engine_scores(method, store, episodes, config, monkeypatch)
    expected = loop_scores(method, store, episodes, dtype)
    method.float()
    best = expected.argmax(dim=-1).view(predicted.shape).numpy()
    return scores, expected, predicted == best


@pytest.mark.parametrize(("name", "options"), METHODS)
@pytest.mark.parametrize(("shot", "batch"), [(1, None), (3, 7)])
def test_engine_equals_a_loop_over_episodes_in_both_precisions(
    store, monkeypatch, name, options, shot, batch
):
    method = built(store, name, options)
    for precision, tolerance in (("float64", 1e-10), ("float32", 1e-4)):
        config = replace(FEW, shot=shot, precision=precision, batch_episodes=batch)
        scores, expected, same = compared(method, store, config, monkeypatch)
        # Of each logit by itself: absolute where it is of order 1, relative where it is larger.
        torch.testing.assert_close(scores, expected, atol=tolerance, rtol=tolerance)
        assert same.all()


def test_every_method_is_compared_with_the_loop():
    assert {name.split(":")[0] for name, _ in METHODS} == set(BUILT_IN)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), METHODS)
def test_engine_and_loop_agree_on_9999_of_10000_queries(store, monkeypatch, name, options):
    config = replace(FEW, episodes=250, shot=2, queries=8)
    _, _, same = compared(built(store, name, options), store, config, monkeypatch)
    assert same.size == 10_000
    assert same.mean() >= 0.9999


class Spy(FewShotMethod):
    """Compares one number per clip, and counts what it is asked."""

    name = "spy"

    def __init__(self, *, classes_apart, shots_apart, averages_shots=False):
        super().__init__()
        self.classes_apart, self.shots_apart = classes_apart, shots_apart
        self.averages_shots = averages_shots
        self.shapes = []

    def prepare(self, clips):
        return {"x": clips.features.mean(dim=(1, 2)).float()}

    def score(self, support, query):
        self.shapes.append((tuple(support["x"].shape), tuple(query["x"].shape)))
        each = (query["x"][:, :, None, None] - support["x"][:, None]).abs()
        return -each.mean(dim=3)


def spied(store, config, **switches):
    spy = Spy(**switches)
    found = evaluate(spy, store, config)
    return spy.shapes, found.result.predicted


def test_table_serves_all_episodes_where_it_is_exact_and_cheaper(store):
    many = replace(FEW, episodes=500)  # 500 x 10 x 15 pairs against 60 x 60
    shapes, tabled = spied(store, many, classes_apart=True, shots_apart=True)
    assert shapes == [((1, 128, 1), (1, 32))] * 2
    shapes, gathered = spied(store, many, classes_apart=True, shots_apart=False)
    assert {support[1:] for support, _ in shapes} == {(5, 3)}
    np.testing.assert_array_equal(tabled, gathered)
    shapes, _ = spied(store, replace(FEW, episodes=5), classes_apart=True, shots_apart=True)
    assert {support[1:] for support, _ in shapes} == {(5, 3)}


@pytest.mark.parametrize(
    ("classes", "shots", "shot", "pairs", "pays"),
    [
        (True, True, 5, 51, True),
        (True, True, 5, 50, False),
        (True, False, 1, 51, True),
        (True, False, 5, 101, False),
        (False, True, 1, 101, False),
    ],
)
def test_table_is_made_only_for_scores_that_it_can_hold(classes, shots, shot, pairs, pays):
    spy = Spy(classes_apart=classes, shots_apart=shots)
    assert table_pays(spy, 10, pairs, shot) == pays


def test_pair_table_holds_the_score_of_every_pair():
    spy = Spy(classes_apart=True, shots_apart=True)
    values = torch.randn(300, generator=torch.Generator().manual_seed(0))
    places = torch.arange(10, 160)
    table = pair_table(spy.score, {"x": values}, places)
    expected = -(values[10:160, None] - values[None, 10:160]).abs()
    torch.testing.assert_close(table, expected, atol=0, rtol=0)
    assert len(set(spy.shapes)) == 1  # one shape of launch, whatever the number of videos


def test_launches_have_one_shape_and_the_last_is_padded(store):
    spy = Spy(classes_apart=False, shots_apart=False)
    found = evaluate(spy, store, replace(FEW, batch_episodes=16))
    assert spy.shapes == [((16, 5, 3), (16, 10))] * 4
    assert found.result.predicted.shape == (50, 5, 2)
    (shape, *_), _ = spied(
        store, replace(FEW, batch_episodes=999), classes_apart=False, shots_apart=False
    )
    assert shape == ((50, 5, 3), (50, 10))


def test_methods_that_average_shots_are_given_their_mean(store):
    spy = Spy(classes_apart=True, shots_apart=False, averages_shots=True)
    evaluate(spy, store, FEW)
    assert {support for support, _ in spy.shapes} == {(50, 5, 1)}


def test_widened_methods_leave_the_given_one_alone(store):
    method = built(store, "hyrsm", {})
    evaluate(method, store, replace(FEW, episodes=2, precision="float64"))
    assert {parameter.dtype for parameter in method.parameters()} == {torch.float32}


def test_several_sets_share_prepared_videos_and_equal_single_evaluations(store):
    # With one shot a table is made; the videos of val lie behind others that are prepared too.
    configs = [replace(FEW, shot=1), replace(FEW, shot=3), replace(FEW, shot=1, split="val")]
    assert all(table_pays(get_method("bi_mhm"), 60, 50 * 10 * 5, one.shot) for one in configs[::2])
    sets = [draw_episodes(store, config) for config in configs]
    seen = []
    method = built(store, "bi_mhm", {})
    together = evaluate_sets(method, store, sets, FEW, on_progress=seen.append)
    for found, config in zip(together, configs, strict=True):
        alone = evaluate(method, store, config)
        np.testing.assert_array_equal(found.result.predicted, alone.result.predicted)
        assert found.to_json() == alone.to_json()
    assert [one.episodes for one in seen] == sorted(one.episodes for one in seen)
    assert (seen[-1].episodes, seen[-1].num_episodes) == (150, 150)


def test_prepared_videos_find_rows_among_others():
    rows = np.array([3, 5, 8, 13])
    prepared = PreparedVideos(
        method=None,
        tensors=prepare_videos(rows, lambda some: {"x": torch.from_numpy(some)}),
        rows=rows,
    )
    assert prepared.places(np.array([[8, 3], [13, 13]])).tolist() == [[2, 0], [3, 3]]
