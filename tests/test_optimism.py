"""What is said of accuracies on classes that chose the weights, or that centred the method."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic_shards import make_shards

from benchmarks.simulated_methods import answer, draw_set
from i2st_model.config import preset
from i2st_model.evaluating.optimism import centring_notes, choice_notes, chosen_on_these
from i2st_model.features import FeatureStore
from i2st_model.methods import get_method
from i2st_model.network import build_network

CHOSEN = {"selected": "val", "dataset": "toy", "val_classes": None}
TRAIN = [f"train {number}" for number in range(6)]


def result_of(training, *, run="r", **episodes):
    rng = np.random.default_rng(0)
    drawn = replace(draw_set(rng, episodes=5), **{"dataset": "toy", "split": "val", **episodes})
    found = answer(rng, drawn)
    return replace(found, made_by=replace(found.made_by, run=run, training=training))


ALL = list(result_of(None).episodes.class_names)


@pytest.mark.parametrize(
    ("training", "episodes", "chosen"),
    [
        ({**CHOSEN, "chosen_on": ["C003", "elsewhere"]}, {}, ["c003"]),
        ({**CHOSEN, "chosen_on": ["c003", "C001"]}, {"dataset": "other"}, ["c001", "c003"]),
        ({**CHOSEN, "chosen_on": ["c003"]}, {"split": "", "dataset": "other"}, ["c003"]),
        ({**CHOSEN, "chosen_on": ["c003"]}, {"split": "test"}, ["c003"]),
        # Weights that were kept as the last, begun from some that val had chosen.
        ({**CHOSEN, "selected": "last", "chosen_on": ["c003"]}, {}, ["c003"]),
        ({**CHOSEN, "chosen_on": ["elsewhere"]}, {}, []),
        # Of runs from before their val classes were kept.
        (CHOSEN, {}, ALL),
        (CHOSEN, {"split": "test"}, []),
        (CHOSEN, {"dataset": "other"}, []),
        ({**CHOSEN, "selected": "last"}, {}, []),
        ({**CHOSEN, "val_classes": ["c003", "elsewhere"]}, {"split": ""}, ["c003"]),
        ({**CHOSEN, "val_classes": ["elsewhere"]}, {}, []),
        (None, {}, []),  # of an older file
    ],
)
def test_classes_that_chose_the_weights_are_known(training, episodes, chosen):
    assert chosen_on_these(result_of(training, **episodes)) == chosen


def test_runs_chosen_on_the_same_classes_are_told_of_in_one_sentence():
    one, two = {**CHOSEN, "chosen_on": ["c003"]}, {**CHOSEN, "chosen_on": ["c003", "c001"]}
    results = [result_of(one, run=name) for name in ("a", "b", "a")]
    why = "their accuracy has chosen the weights"
    assert choice_notes([*results, result_of(two, run="d"), result_of(None, run="e")]) == [
        f"a, b: optimistic on 1 of these {len(ALL)} classes ('c003'): {why}",
        f"d: optimistic on 2 of these {len(ALL)} classes ('c001', 'c003'): {why}",
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return FeatureStore(make_shards(tmp_path_factory.mktemp("shards") / "toy"))


def centred(store, method, classes, checkpoint=None):
    """What is said of a method on the named classes."""
    ready = SimpleNamespace(label="it", method=method, checkpoint=checkpoint, store=store)
    return centring_notes([ready], [SimpleNamespace(class_names=classes)] * 2)


@pytest.mark.parametrize(
    ("name", "subtracts"),
    [("simpleshot", True), ("simpleshot:centre=false", False), ("protonet", False)],
)
def test_methods_without_training_are_centred_on_the_train_split(store, name, subtracts):
    method = get_method(name)
    said = centred(store, method, ["test 0", "train 1", "train 3"])
    assert len(said) == subtracts
    for line in said:
        assert line.startswith("it: optimistic on 2 of these 3 classes ('train 1', 'train 3'): the")
    assert centred(store, method, ["test 0", "val 1"]) == []


@pytest.mark.parametrize(("dataset", "told"), [("far", 6), ("toy", 1)])
def test_probe_is_centred_on_what_its_network_saw_here_else_on_the_train_split(
    store, dataset, told
):
    network = build_network(preset("i2st", token_dim=8, grid=2, dim=8, heads=2, mask_width=4))
    run = SimpleNamespace(info=SimpleNamespace(dataset=dataset, train_classes=["train 2", "a"]))
    (line,) = centred(store, get_method("i2st:head=probe", network=network), TRAIN, run)
    assert f"optimistic on {told} of these 6 classes ('train {0 if told == 6 else 2}'" in line
    assert centred(store, get_method("i2st", network=network), TRAIN, run) == []


def test_weights_that_bring_their_mean_are_centred_on_nothing_here(store):
    run = SimpleNamespace(info=SimpleNamespace(dataset="far", train_classes=["a"]))
    assert centred(store, get_method("trx"), TRAIN, run) == []
