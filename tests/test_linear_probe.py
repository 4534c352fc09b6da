"""The linear probe against Newton's method on the weights themselves, in float64."""

import re

import numpy as np
import pytest
import torch

from i2st_model.matching import unit
from i2st_model.methods import get_method, linear_probe
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.methods.linear_probe import fit_probe
from pipeline.errors import ConfigError

T, D = 3, 7


def clips(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return 1 + torch.randn(count, T, D, generator=generator, dtype=torch.float64)


def probe(**options):
    method = get_method("linear_probe", **options)
    mean = torch.full((D,), 1.0, dtype=torch.float64)
    method.fit(TrainStatistics(embedding_dim=D, mean_embedding=mean))
    return method


def scored(method, support, query):
    def prepared(features, *leading):
        values = method.prepare(Clips(features=features))
        return {name: value.view(*leading, -1) for name, value in values.items()}

    N, K = support.shape[:2]
    return method.score(prepared(support.flatten(0, 1), 1, N, K), prepared(query, 1, len(query)))[
        0
    ].numpy()


def embedded(features):
    mean = features.numpy().mean(axis=-2) - 1.0
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def gradient(weights, x, truth, regularisation):
    """Of summed cross entropy plus half the penalty, which spares the last row, the bias."""
    logits = x @ weights
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    penalised = weights.copy()
    penalised[-1] = 0
    return x.T @ (p - truth) + regularisation * penalised, p


def newton_weights(x, truth, regularisation):
    """(D + 1, N) minimiser: full Hessian, steps halved until the gradient shrinks."""
    size, way = x.shape[1], truth.shape[1]
    weights = np.zeros((size, way))
    slope, p = gradient(weights, x, truth, regularisation)
    penalty = np.repeat([*[regularisation] * (size - 1), 0.0], way)
    for _ in range(100):
        hessian = np.diag(penalty)
        for row, share in zip(x, p, strict=True):
            curvature = np.diag(share) - np.outer(share, share)
            hessian += np.kron(np.outer(row, row), curvature)
        step = np.linalg.lstsq(hessian, slope.ravel(), rcond=None)[0].reshape(size, way)
        length = 1.0
        while True:
            moved = weights - length * step
            new_slope, new_p = gradient(moved, x, truth, regularisation)
            if np.linalg.norm(new_slope) < np.linalg.norm(slope) or length < 1e-6:
                break
            length /= 2
        weights, slope, p = moved, new_slope, new_p
        if np.abs(slope).max() < 1e-13:
            break
    return weights


@pytest.mark.parametrize(("way", "shot"), [(2, 1), (5, 1), (3, 4)])
@pytest.mark.parametrize("regularisation", [1.0, 0.01])
def test_linear_probe_finds_the_minimum_that_newton_finds(way, shot, regularisation):
    support, query = clips(way * shot, seed=0).view(way, shot, T, D), clips(6, seed=1)
    found = scored(probe(regularisation=regularisation), support, query)
    x = np.concatenate([embedded(support.flatten(0, 1)), np.ones((way * shot, 1))], axis=1)
    truth = np.repeat(np.eye(way), shot, axis=0)
    weights = newton_weights(x, truth, regularisation)
    assert np.abs(gradient(weights, x, truth, regularisation)[0]).max() < 1e-12
    expected = np.concatenate([embedded(query), np.ones((6, 1))], axis=1) @ weights
    # One constant added to the logits of all classes is free: the penalty does not see the bias.
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_linear_probe_on_one_shot_of_opposite_classes_by_hand():
    # Clips u and -u: weights (w, -w) with w = a u, and 2 a = 2 (1 - p) / regularisation for the
    # share p = 1 / (1 + exp(-2 a)) that each clip gives its own class.
    direction = torch.zeros(T, D, dtype=torch.float64)
    direction[:, 0] = 1.0
    support = torch.stack([1 + direction, 1 - direction]).unsqueeze(1)
    found = scored(probe(regularisation=0.5), support, support.flatten(0, 1))
    a = found[0, 0]
    assert 0.5 * a == pytest.approx(2 / (1 + np.exp(2 * a)), abs=1e-10)
    np.testing.assert_allclose(found, [[a, -a], [-a, a]], atol=1e-10)


def test_linear_probe_of_an_episode_does_not_depend_on_the_episodes_beside_it():
    method = probe(regularisation=0.1)
    support = method.prepare(Clips(features=clips(24, seed=2)))["clip"].view(3, 4, 2, D)
    # The middle episode is easier and stops earlier.
    support[1] = support[1].mean(dim=1, keepdim=True)
    query = method.prepare(Clips(features=clips(15, seed=3)))["clip"].view(3, 5, D)
    together = method.score({"clip": support}, {"clip": query})
    for e in range(3):
        alone = method.score({"clip": support[e : e + 1]}, {"clip": query[e : e + 1]})
        torch.testing.assert_close(alone[0], together[e], atol=1e-14, rtol=0)


def test_linear_probe_in_float32_is_the_float64_one_rounded():
    support, query = clips(15, seed=4).view(5, 3, T, D), clips(8, seed=5)
    method = probe()
    exact = scored(method, support, query)
    np.testing.assert_allclose(scored(method, support.float(), query.float()), exact, atol=1e-5)


def test_senseless_regularisation_is_refused():
    with pytest.raises(ConfigError, match="regularisation=0; a number above 0"):
        get_method("linear_probe", regularisation=0)


def test_episodes_that_stop_at_the_limit_are_said_once_with_residual_and_remedy(
    monkeypatch, caplog
):
    support, query = clips(10, seed=6).view(5, 2, T, D), clips(4, seed=7)
    scored(probe(), support, query)
    assert not caplog.records
    monkeypatch.setattr(linear_probe, "MAX_STEPS", 4)
    method = probe(regularisation=0.01)
    for _ in range(2):
        scored(method, support, query)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    said = re.search(r"after 4 steps at a residual of (\S+); 1e-11 was", record.getMessage())
    assert 1e-11 < float(said[1]) < 1
    (hint,) = re.findall(r"raise regularisation=0\.01, e\.g\. (\S+)", record.getMessage())
    assert get_method(hint).regularisation == 0.1


def test_usual_episodes_take_few_steps(monkeypatch):
    # 70 and 135 when this was written; without momentum, or with a timid bias, three times as many.
    for way, shot in ((5, 1), (5, 5)):
        generator = torch.Generator().manual_seed(8)
        classes = torch.randn(8, way, 1, 64, generator=generator, dtype=torch.float64)
        noise = torch.randn(8, way, shot, 64, generator=generator, dtype=torch.float64)
        clips = unit(1.5 * classes + noise).flatten(1, 2)
        centred = clips - clips.mean(dim=1, keepdim=True)
        monkeypatch.setattr(linear_probe, "MAX_STEPS", 80 + 20 * shot)
        residual = fit_probe(centred @ centred.mT, way, shot, 0.1)[2]
        assert residual.max() <= linear_probe.TOLERANCE


def test_steps_up_to_the_limit_are_all_taken(monkeypatch):
    gram = torch.eye(4, dtype=torch.float64)[None] - 0.25
    most = 0
    while fit_probe(gram, 2, 2, 0.1)[2].max() > linear_probe.TOLERANCE or most == 0:
        most += 1
        monkeypatch.setattr(linear_probe, "MAX_STEPS", most)
    monkeypatch.undo()
    exact = fit_probe(gram, 2, 2, 0.1)
    monkeypatch.setattr(linear_probe, "MAX_STEPS", most)
    for one, other in zip(fit_probe(gram, 2, 2, 0.1), exact, strict=True):
        assert torch.equal(one, other)
