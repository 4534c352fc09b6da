"""What results know of their weights: whether these were chosen on the very classes they meet."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.simulated_methods import answer, draw_set
from i2st_model.evaluating.provenance import chosen_on_these

CHOSEN = {"selected": "val", "dataset": "toy", "val_classes": None}


def result_of(training, **episodes):
    rng = np.random.default_rng(0)
    drawn = replace(draw_set(rng, episodes=5), **{"dataset": "toy", "split": "val", **episodes})
    found = answer(rng, drawn)
    return replace(found, made_by=replace(found.made_by, run="r", training=training))


@pytest.mark.parametrize(
    ("training", "episodes", "chosen"),
    [
        (CHOSEN, {}, True),
        (CHOSEN, {"split": "test"}, False),
        (CHOSEN, {"dataset": "other"}, False),  # its own val split chose nothing
        ({**CHOSEN, "selected": "last"}, {}, False),
        ({**CHOSEN, "val_classes": ["c003", "elsewhere"]}, {"split": ""}, True),
        ({**CHOSEN, "val_classes": ["elsewhere"]}, {}, False),
        (None, {}, False),  # of an older file
    ],
)
def test_weights_are_known_to_be_chosen_on_the_classes_they_meet(training, episodes, chosen):
    assert chosen_on_these(result_of(training, **episodes)) == chosen


def test_runs_are_named_by_folder_seed_and_content():
    made_by = replace(result_of(None).made_by, checkpoint_sha256="ab" * 32, train_seed=3)
    assert made_by.run_words() == "run r, seed 3, checkpoint abababababab"
    old = replace(made_by, checkpoint_sha256=None, train_seed=None)
    assert old.run_words() == "run r, checkpoint unknown"
