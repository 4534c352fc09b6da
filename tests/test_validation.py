"""Accuracy on val episodes while training, against a loop over the episodes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic_shards import make_shards
from torch import nn

from i2st_model.episodes import EpisodeSampler
from i2st_model.features import FeatureStore
from i2st_model.training import validation


@pytest.mark.parametrize("size", [7, 25, 99])
def test_val_accuracy_is_the_mean_of_a_loop_whatever_the_batches(tmp_path, monkeypatch, size):
    store = FeatureStore(make_shards(tmp_path / "toy", signal=1.0))
    sampler = EpisodeSampler(store.videos_of(store.classes_of("val")), way=4, shot=2, queries=3)

    def prepare(rows):
        return {"x": store.frame_embedding(rows).mean(dim=1)}

    def score(support, query):
        means = support["x"].mean(dim=2)
        return -(query["x"][:, :, None] - means[:, None]).square().sum(dim=-1)

    network = nn.Identity()
    learner = SimpleNamespace(network=network, prepare=prepare, score=score)
    monkeypatch.setattr(validation, "episodes_at_a_time", lambda *_: size)
    looked_at = validation.Validation(sampler, count=25, device=torch.device("cpu"))
    found = looked_at.accuracy(learner)

    right = []
    for number in range(25):
        episode = sampler.episode(number)
        means = [prepare(rows)["x"].mean(dim=0) for rows in episode.support]
        for true, rows in enumerate(episode.query):
            for clip in prepare(rows)["x"]:
                distances = [float((clip - mean).square().sum()) for mean in means]
                right.append(int(np.argmin(distances)) == true)
    assert 0.25 < np.mean(right) < 1
    assert found == pytest.approx(100 * np.mean(right))
    assert network.training
