"""HyRSM against its paper's formula, clip by clip and query by query in float64."""

import math

import numpy as np
import pytest
import torch

from i2st_model.methods import get_method
from i2st_model.methods.clips import Clips, TrainStatistics
from pipeline.errors import ConfigError

T, D, HEADS = 4, 8, 2
N, K, Q = 3, 2, 4
ROWS = torch.arange(2 * (N * K + Q)).view(2, -1)
SUPPORT, QUERY = ROWS[:, : N * K].view(2, N, K), ROWS[:, N * K :]


def hyrsm(**options):
    torch.manual_seed(0)
    method = get_method("hyrsm", heads=HEADS, **options).double()
    mean = torch.randn(D, dtype=torch.float64)
    method.fit(TrainStatistics(embedding_dim=D, mean_embedding=mean))
    return method.double().eval()


def stir(method):
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.4 * torch.randn_like(parameter))
    return method


def features():
    return torch.randn(ROWS.numel(), T, D, dtype=torch.float64)


def scored(method, clips):
    values = method.prepare(Clips(features=clips))
    support = {name: value[SUPPORT] for name, value in values.items()}
    query = {name: value[QUERY] for name, value in values.items()}
    return method.score(support, query)


# --- the written-out form ---


def linear(layer, vector):
    bias = 0 if layer.bias is None else layer.bias.detach().numpy()
    return layer.weight.detach().numpy() @ vector + bias


def layer_norm(layer, vector):
    centred = vector - vector.mean()
    normed = centred / math.sqrt((centred**2).mean() + layer.eps)
    return normed * layer.weight.detach().numpy() + layer.bias.detach().numpy()


def attention(layer, clips):
    """Multi-head self-attention of a list of vectors."""
    size = D // HEADS
    asked = [linear(layer.query, one) for one in clips]
    keys = [linear(layer.key, one) for one in clips]
    values = [linear(layer.value, one) for one in clips]
    read = []
    for i in range(len(clips)):
        parts = []
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            weights = [math.exp(asked[i][part] @ key[part] / math.sqrt(size)) for key in keys]
            parts.append(
                sum(w * value[part] for w, value in zip(weights, values, strict=True))
                / sum(weights)
            )
        read.append(linear(layer.output, np.concatenate(parts)))
    return read


def position(t):
    angles = [t / 10000 ** (i / (D // 2)) for i in range(D // 2)]
    return np.array([*(math.sin(a) for a in angles), *(math.cos(a) for a in angles)])


def relu(values):
    return np.maximum(values, 0)


def intra(method, clip):
    frames = [frame - method.train_mean.numpy() for frame in clip.numpy()]
    if method.released:
        frames = [frame * math.sqrt(D / 10) + position(t) for t, frame in enumerate(frames)]
        normed = [layer_norm(method.norm_within, frame) for frame in frames]
        read = attention(method.within, normed)
        return relu(np.array(frames) + read)
    normed = [layer_norm(method.norm_within, f) + position(t) for t, f in enumerate(frames)]
    return np.array(frames) + attention(method.within, normed)


def joined(method, clip, read):
    weight = np.concatenate(
        [method.join_frames.weight.detach().numpy(), method.join_clip.weight.detach().numpy()], 1
    )
    bias = method.join_frames.bias.detach().numpy()
    return [weight @ np.concatenate([frame, read]) + bias for frame in clip]


def set_distance(first, second):
    costs = np.array(
        [[1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in second] for a in first]
    )
    return costs.min(axis=1).mean() + costs.min(axis=0).mean()


def expected_scores(method, clips, support, query, shots):
    """(N,) scores of one query."""
    related = [[intra(method, clips[row]) for row in rows] for rows in support]
    if shots == "before_matching":
        related = [[sum(some) / len(some)] for some in related]
    flat = [clip for some in related for clip in some]
    everything = [*flat, intra(method, clips[query])]
    means = [clip.mean(axis=0) for clip in everything]
    read = attention(method.between.attention, means)
    read = [layer_norm(method.between.norm, a + b) for a, b in zip(means, read, strict=True)]
    if method.released:
        read = [relu(one) for one in read]
    done = [joined(method, clip, one) for clip, one in zip(everything, read, strict=True)]
    distances = [set_distance(clip, done[-1]) for clip in done[:-1]]
    return [-8 * float(np.mean(some)) for some in np.split(np.array(distances), N)]


@pytest.mark.parametrize("start", ["bi_mhm", "released"])
@pytest.mark.parametrize("shots", ["before_matching", "after_matching"])
def test_hyrsm_matches_the_written_out_relations(start, shots):
    method = stir(hyrsm(start=start, shots=shots))
    clips = features()
    found = scored(method, clips)
    for e in range(2):
        for q in range(Q):
            expected = expected_scores(method, clips, SUPPORT[e], QUERY[e, q], shots)
            np.testing.assert_allclose(found[e, q].detach().numpy(), expected, atol=1e-10)


# --- properties ---


@pytest.mark.parametrize("shots", ["before_matching", "after_matching"])
def test_hyrsm_begins_as_bi_mhm(shots):
    method, clips = hyrsm(shots=shots), features()
    plain = get_method("bi_mhm", shots=shots)
    plain.fit(TrainStatistics(embedding_dim=D, mean_embedding=method.train_mean))
    torch.testing.assert_close(scored(method, clips), 8 * scored(plain, clips))
    assert (scored(hyrsm(start="released"), clips) - 8 * scored(plain, clips)).abs().max() > 0.01


def test_hyrsm_relates_queries_to_the_episode_yet_not_to_each_other():
    method, clips = stir(hyrsm()), features()
    found = scored(method, clips)
    other = clips.clone()
    other[QUERY[0, 1]] += 1
    moved = (scored(method, other) - found).abs().amax(dim=-1)
    assert moved[0, 1] > 1e-3
    moved[0, 1] = 0
    assert moved.max() < 1e-12
    other = clips.clone()
    other[SUPPORT[0, 2, 0]] += 1
    moved = (scored(method, other) - found).abs()
    assert moved[0].min() > 1e-6  # the other classes' scores move too
    assert moved[1].max() < 1e-12
    assert not method.classes_apart


def test_hyrsm_gradients_are_those_of_finite_differences():
    method, clips = stir(hyrsm()).train(), features()
    method.dropout.p = method.between.dropout.p = 0.0
    scored(method, clips).log_softmax(dim=-1)[..., 0].sum().backward()
    for name in ("join_clip.weight", "between.attention.key.weight", "within.value.weight"):
        parameter = dict(method.named_parameters())[name]
        direction = torch.randn_like(parameter)
        values = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                parameter.add_(step * direction)
                values.append(scored(method, clips).log_softmax(dim=-1)[..., 0].sum())
                parameter.sub_(step * direction)
        expected = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close((parameter.grad * direction).sum(), expected, rtol=1e-5, atol=0)


def test_hyrsm_keeps_in_its_state_what_a_run_needs():
    method, clips = stir(hyrsm()), features()
    other = get_method("hyrsm", heads=HEADS)
    zeros = torch.zeros(D, dtype=torch.float64)
    other.fit(TrainStatistics(embedding_dim=D, mean_embedding=zeros))
    other.double().eval().load_state_dict(method.state_dict())
    assert torch.equal(scored(other, clips), scored(method, clips))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": "zero"}, "start='zero' is unknown; one of bi_mhm, released"),
        ({"heads": 3}, "heads=3 and .* of 8"),
    ],
)
def test_hyrsm_refuses_senseless_options(options, message):
    with pytest.raises(ConfigError, match=message):
        get_method("hyrsm", **options).fit(TrainStatistics(embedding_dim=D))
