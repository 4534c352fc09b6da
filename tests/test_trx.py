"""TRX against the paper's formula written out tuple by tuple, and its properties."""

import itertools
import math

import pytest
import torch

from i2st_model.methods import get_method
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.methods.trx import Trx, positions
from pipeline.errors import ConfigError

E, N, K, Q, T = 2, 3, 2, 4, 5


def made_trx(channels, *, dtype=torch.float64, **options):
    """A TRX with random weights everywhere, those of its layer norms included."""
    torch.manual_seed(3)
    method = get_method("trx", **{"dropout": 0.0, **options})
    mean = torch.randn(channels)
    method.fit(TrainStatistics(embedding_dim=channels, mean_embedding=mean))
    for attention in method.tuples.values():
        torch.nn.init.normal_(attention.norm.weight)
        torch.nn.init.normal_(attention.norm.bias)
    return method.to(dtype).eval()


def made_clips(channels, *, dtype=torch.float64, episodes=E, shape=(N, K, Q, T)):
    generator = torch.Generator().manual_seed(4)
    way, shot, queries, frames = shape
    support = torch.randn(episodes, way, shot, frames, channels, generator=generator)
    query = torch.randn(episodes, queries, frames, channels, generator=generator)
    return support.to(dtype), query.to(dtype)


def scored(method, support, query):
    prepared = []
    for clips in (support, query):
        found = method.prepare(Clips(features=clips.flatten(0, -3)))
        leading = clips.shape[:-2]
        prepared.append({name: value.unflatten(0, leading) for name, value in found.items()})
    return method.score(*prepared)


def tuple_vectors(attention, frames, cardinality):
    """Keys and values (P, D) of one clip, from its tuples joined end to end as in the paper."""
    keys, values = [], []
    for chosen in itertools.combinations(range(len(frames)), cardinality):
        joined = torch.cat([frames[frame] for frame in chosen])
        keys.append(attention.norm(attention.keys.weight @ joined + attention.keys.bias))
        values.append(attention.values.weight @ joined)
    return torch.stack(keys), torch.stack(values)


def loop_distance(attention, query, shots, cardinality):
    """Of one query clip to one class: Eq. by Eq., with an explicit prototype for every tuple."""
    query_keys, query_values = tuple_vectors(attention, query, cardinality)
    pairs = [tuple_vectors(attention, shot, cardinality) for shot in shots]
    keys, values = torch.cat([key for key, _ in pairs]), torch.cat([value for _, value in pairs])
    total = 0.0
    for key, value in zip(query_keys, query_values, strict=True):
        correspondence = torch.softmax(keys @ key / math.sqrt(len(key)), dim=0)
        prototype = sum(weight * one for weight, one in zip(correspondence, values, strict=True))
        total = total + (value - prototype).square().sum()
    return total / len(query_keys)


def loop_frames(method, frames):
    """Centred, at a mean square of one, plus the positional encoding."""
    channels = frames.shape[-1]
    centred = frames - method.train_mean if method.centre else frames
    if method.scale:
        centred = centred / centred.square().mean(dim=-1, keepdim=True).sqrt()
    encoded = torch.empty_like(centred)
    for t, c in itertools.product(range(frames.shape[-2]), range(channels)):
        angle = t / 10_000 ** (2 * (c // 2) / channels)
        wave = math.sin(angle) if c % 2 == 0 else math.cos(angle)
        encoded[..., t, c] = centred[..., t, c] + 0.1 * wave
    return encoded


def loop_scores(method, support, query):
    support, query = loop_frames(method, support), loop_frames(method, query)
    rows = []
    for episode, clip in itertools.product(range(len(query)), range(query.shape[1])):
        for way in range(support.shape[1]):
            distances = [
                loop_distance(attention, query[episode, clip], support[episode, way], int(count))
                for count, attention in method.tuples.items()
            ]
            rows.append(-sum(distances) / len(distances))
    return torch.stack(rows).view(len(query), query.shape[1], support.shape[1])


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (6, {"width": 9}),  # products folded into the embedding's channels when not training
        (6, {"width": 5}),
        (7, {"width": 9, "cardinalities": [1, 4], "centre": False}),
        (6, {"width": 9, "cardinalities": [5], "scale": False}),
    ],
)
def test_trx_scores_match_the_formula_tuple_by_tuple(channels, options, training):
    method = made_trx(channels, **options, temperature=1.0).train(training)
    support, query = made_clips(channels)
    expected = loop_scores(method, support, query)
    torch.testing.assert_close(scored(method, support, query), expected, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("training", [False, True])
def test_trx_gradients_match_those_of_the_formula(training):
    method = made_trx(6, width=9).train(training)
    support, query = made_clips(6)
    support.requires_grad_()
    weights = [support, *method.parameters()]
    slopes = torch.randn(E, Q, N, dtype=torch.float64)
    found = torch.autograd.grad((scored(method, support, query) * slopes).sum(), weights)
    expected = torch.autograd.grad((loop_scores(method, support, query) * slopes).sum(), weights)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("training", [False, True])
def test_trx_in_single_precision_agrees_with_the_formula_in_double(training):
    method = made_trx(256, width=384).train(training)
    support, query = made_clips(256, dtype=torch.float32, episodes=1, shape=(3, 2, 2, 8))
    expected = loop_scores(method, support.double(), query.double())
    found = scored(method.float(), support, query)
    torch.testing.assert_close(found.double(), expected, atol=0, rtol=1e-5)
    assert found.argmax(-1).equal(expected.argmax(-1))


def test_trx_of_one_tuple_is_the_distance_of_two_values():
    # Two frames make one pair, to which all attention goes: no keys are left in the distance.
    method = made_trx(6, width=4, cardinalities=[2], centre=False, scale=False)
    support, query = made_clips(6, episodes=1, shape=(2, 1, 1, 2))
    difference = (query[0, 0] - support[0, :, 0]).flatten(1)
    expected = -(difference @ method.tuples["2"].values.weight.T).square().sum(dim=1)
    torch.testing.assert_close(scored(method, support, query)[0, 0], expected)


def test_trx_scores_a_class_by_itself_whatever_the_order_of_its_shots():
    method = made_trx(6, width=9)
    support, query = made_clips(6)
    together = scored(method, support, query)
    alone = scored(method, support[:, 1:2].flip(2), query[:, 2:3])
    torch.testing.assert_close(alone, together[:, 2:3, 1:2])
    assert method.classes_apart
    assert not method.shots_apart


def test_trx_divides_distances_by_the_temperature():
    support, query = made_clips(6)
    expected = scored(made_trx(6, width=9, temperature=1.0), support, query) / 4
    torch.testing.assert_close(
        scored(made_trx(6, width=9, temperature=4), support, query), expected
    )


def test_trx_tells_the_order_of_frames():
    method = made_trx(6, width=9)
    support, query = made_clips(6)
    moved = scored(method, support, query.flip(2)) - scored(method, support, query)
    assert moved.abs().min() > 1e-6


def test_trx_drops_channels_while_training_alone():
    method = made_trx(6, width=9, dropout=0.5)
    support, query = made_clips(6)
    torch.testing.assert_close(scored(method, support, query), scored(method, support, query))
    method.train()
    first, second = (scored(method, support, query) for _ in range(2))
    assert not torch.allclose(first, second)


def test_trx_weights_go_into_a_newly_fitted_method():
    method, support_query = made_trx(6, width=9), made_clips(6)
    other = Trx(width=9)
    other.fit(TrainStatistics(embedding_dim=6, mean_embedding=torch.zeros(6)))
    other.load_state_dict({name: value.float() for name, value in method.state_dict().items()})
    found = scored(other.double().eval(), *support_query)
    expected = scored(method, *support_query)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_positions_of_an_odd_number_of_channels_end_with_a_sine():
    assert positions(4, 7).shape == (4, 7)
    expected = 0.1 * math.sin(3 * 10_000 ** (-6 / 7))
    assert positions(4, 7)[3, 6].item() == pytest.approx(expected)


def test_trx_refuses_clips_shorter_than_its_tuples():
    method = made_trx(6, width=9)
    with pytest.raises(ConfigError, match=r"clips have 2 frames, cardinalities=\[2, 3\] need 3"):
        method.prepare(Clips(features=torch.zeros(1, 2, 6)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cardinalities": []}, r"cardinalities=\[\]"),
        ({"cardinalities": [2, 2]}, r"cardinalities=\[2, 2\]"),
        ({"cardinalities": [2, 0]}, r"cardinalities=\[2, 0\]"),
        ({"width": 0}, "width=0"),
        ({"dropout": 1.0}, r"dropout=1.0"),
        ({"temperature": 0}, "temperature=0"),
    ],
)
def test_trx_refuses_options_without_meaning(options, said):
    with pytest.raises(ConfigError, match=said):
        Trx(**options)


def test_trx_under_autocast_projects_in_half_precision_alone():
    method = made_trx(32, width=48, dtype=torch.float32).train()
    support, query = made_clips(32, dtype=torch.float32)
    exact = scored(method, support, query)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        prepared = method.prepare(Clips(features=query.flatten(0, 1)))
        assert {value.dtype for value in prepared.values()} == {torch.float32}
        support_parts = method.prepare(Clips(features=support.flatten(0, 2)))
    found = method.score(
        {name: value.unflatten(0, (E, N, K)) for name, value in support_parts.items()},
        {name: value.unflatten(0, (E, Q)) for name, value in prepared.items()},
    )
    # Eight bits of mantissa in the projections: scores move, by less than a part in fifty.
    assert not torch.equal(found, exact)
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0)
