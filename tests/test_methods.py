"""Methods against written-out rules, the registry, and their common protocol."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from i2st_model.config import preset
from i2st_model.matching import bi_mhm, otam
from i2st_model.methods import METHODS, get_method, method_class, method_names
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.network import build_network
from pipeline.errors import BackendError, ConfigError

B, T, D = 7, 4, 8
SUPPORT = torch.tensor([[[0, 1], [2, 3]], [[4, 0], [1, 2]]])
QUERY = torch.tensor([[5, 6, 4], [6, 3, 5]])
CENTRED = ["bi_mhm", "linear_probe", "otam", "simpleshot"]
NEEDS_WEIGHTS_ON_DISK = {"clip_zero_shot"}
HERE = sorted(set(METHODS) - NEEDS_WEIGHTS_ON_DISK)


def embeddings():
    return torch.randn(B, T, D, dtype=torch.float64) + 2


def prepared(method, features):
    clips = Clips(features=features, videos=torch.arange(len(features)) * 11)
    return method.prepare(clips)


def gathered(values, rows):
    return {name: value[rows] for name, value in values.items()}


def scored(method, features):
    values = prepared(method, features)
    return method.score(gathered(values, SUPPORT), gathered(values, QUERY))


def fitted(method, mean):
    method.fit(TrainStatistics(embedding_dim=D, mean_embedding=mean))
    return method.eval()


def small_network():
    config = preset("i2st", token_dim=D, grid=3, dim=8, heads=2, mask_width=8)
    return build_network(config)


def any_method(name, **options):
    network = {"network": small_network()} if name == "i2st" else {}
    return fitted(get_method(name, **network, **options), torch.zeros(D))


def features_for(method):
    return torch.randn((B, T, 9, D) if method.needs == "tokens" else (B, T, D))


# --- values ---


def each_score():
    return [(e, q, n) for e in range(2) for q in range(3) for n in range(2)]


def test_protonet_matches_a_loop():
    features = embeddings()
    found = scored(fitted(get_method("protonet"), None), features)
    clips = [sum(clip) / T for clip in features]
    for e, q, n in each_score():
        prototype = (clips[SUPPORT[e, n, 0]] + clips[SUPPORT[e, n, 1]]) / 2
        expected = -((clips[QUERY[e, q]] - prototype) ** 2).sum()
        assert found[e, q, n].item() == pytest.approx(expected.item(), abs=1e-12)


def test_simpleshot_matches_a_loop():
    features, mean = embeddings(), torch.full((D,), 2.0, dtype=torch.float64)
    found = scored(fitted(get_method("simpleshot"), mean), features)
    clips = []
    for clip in features:
        vector = sum(clip) / T - mean
        clips.append(vector / vector.square().sum().sqrt())
    for e, q, n in each_score():
        prototype = (clips[SUPPORT[e, n, 0]] + clips[SUPPORT[e, n, 1]]) / 2
        expected = -((clips[QUERY[e, q]] - prototype) ** 2).sum()
        assert found[e, q, n].item() == pytest.approx(expected.item(), abs=1e-12)


FRAME_METHODS = pytest.mark.parametrize(
    ("name", "distance"),
    [("bi_mhm", bi_mhm), ("otam", lambda a, b: otam(a, b, temperature=0.5))],
)


@FRAME_METHODS
def test_frame_methods_match_their_distance_of_centred_frames(name, distance):
    features, mean = embeddings(), torch.randn(D, dtype=torch.float64)
    found = scored(fitted(get_method(name), mean), features)
    for e, q, n in each_score():
        first, second = features[SUPPORT[e, n, 0]], features[SUPPORT[e, n, 1]]
        prototype = (first + second) / 2 - mean
        clip = features[QUERY[e, q]] - mean
        expected = -distance(clip[None, None], prototype[None, None]).item()
        assert found[e, q, n].item() == pytest.approx(expected, abs=1e-12)


@FRAME_METHODS
def test_frame_methods_average_distances_after_matching(name, distance):
    features = embeddings()
    found = scored(get_method(name, centre=False, shots="after_matching"), features)
    for e, q, n in each_score():
        clip = features[QUERY[e, q]][None, None]
        each = [distance(clip, features[row][None, None]).item() for row in SUPPORT[e, n]]
        assert found[e, q, n].item() == pytest.approx(-sum(each) / 2, abs=1e-12)


@pytest.mark.parametrize("name", ["bi_mhm", "hyrsm", "otam"])
def test_unknown_way_of_averaging_shots_is_refused(name):
    with pytest.raises(ConfigError, match="shots='mean' is unknown; one of before"):
        get_method(name, shots="mean")


def test_otam_takes_its_temperature():
    features = embeddings()
    soft = scored(get_method("otam", centre=False, temperature=2.0), features)
    hard = scored(get_method("otam", centre=False, temperature=0.01), features)
    assert (soft > hard).all()


@pytest.mark.parametrize("temperature", ["0", "-1", "nan", "inf"])
def test_otam_refuses_a_temperature_out_of_range(temperature):
    with pytest.raises(ConfigError, match=r"temperature=\S+ is out of range; 0.001 to 1000"):
        get_method(f"otam:temperature={temperature}")


def test_random_scores_are_those_of_splitmix_in_python_integers():
    def mix(word):
        word = (word + 0x9E3779B97F4A7C15) % 2**64
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        return word ^ (word >> 31)

    def pair(query, support):
        of_query = mix(mix(query + 3 * 0x9E3779B97F4A7C15))
        return (mix(of_query + support) >> 40) / 2**24

    found = scored(get_method("random", seed=3), embeddings())
    for e, q, n in each_score():
        query = 11 * QUERY[e, q].item()
        expected = sum(pair(query, 11 * row.item()) for row in SUPPORT[e, n]) / 2
        assert found[e, q, n].item() == pytest.approx(expected, abs=1e-7)


def test_random_scores_are_uniform_and_differ_with_the_seed():
    rows = torch.arange(400)
    episode = {"video": rows[None, :200, None]}, {"video": rows[None, 200:]}
    one, other = (get_method("random", seed=seed).score(*episode)[0].numpy() for seed in (0, 1))
    assert abs(one.mean() - 0.5) < 0.01  # 40,000 draws have a standard error of 0.0014
    assert np.bincount((one.ravel() * 10).astype(int), minlength=10).std() < 200  # expected 60
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.03
    # Neighbours in either direction are no more alike than others.
    for near in (one[1:] * one[:-1], one[:, 1:] * one[:, :-1]):
        assert abs(near.mean() - 0.25) < 0.01


def test_random_scores_know_nothing_of_the_features():
    method = get_method("random")
    assert torch.equal(scored(method, embeddings()), scored(method, embeddings()))
    with pytest.raises(ValueError, match=r"clips\.videos is None"):
        method.prepare(Clips(features=embeddings()))


# --- centring ---


@pytest.mark.parametrize("name", CENTRED)
def test_centring_removes_what_all_frames_share(name):
    features = embeddings()
    shift = torch.randn(D, dtype=torch.float64) * 10
    method = fitted(get_method(name), features.mean(dim=(0, 1)))
    moved = fitted(get_method(name), (features + shift).mean(dim=(0, 1)))
    torch.testing.assert_close(scored(moved, features + shift), scored(method, features))
    plain = get_method(name, centre=False)
    moved_plain = scored(plain, features + shift) - scored(plain, features)
    assert moved_plain.abs().max() > 1e-3
    assert (method.needs_train_mean, plain.needs_train_mean) == (True, False)


@pytest.mark.parametrize("name", CENTRED)
def test_centring_needs_fit(name):
    with pytest.raises(ValueError, match="call fit first"):
        prepared(get_method(name), embeddings())


@pytest.mark.parametrize(("name", "key"), [("bi_mhm", "frames"), ("protonet", "clip")])
def test_baselines_widen_half_precision(name, key):
    method = fitted(get_method(name), torch.zeros(D, dtype=torch.float16))
    assert prepared(method, embeddings().half())[key].dtype == torch.float32


# --- the protocol ---


def test_i2st_prepares_and_scores_with_its_network():
    network = small_network()
    method = get_method("i2st", network=network)
    assert not network.training
    tokens = torch.randn(B, T, 9, D)
    described = network.describe(tokens)
    expected = network.logits(gathered(described, QUERY), gathered(described, SUPPORT))
    assert torch.equal(scored(method, tokens), expected)


@pytest.mark.parametrize("name", HERE)
def test_methods_prepare_clips_one_by_one(name):
    method = any_method(name)
    features = features_for(method)
    together = prepared(method, features)
    assert method.name == name
    for row in range(B):
        clips = Clips(features=features[row : row + 1], videos=torch.tensor([11 * row]))
        for key, value in method.prepare(clips).items():
            torch.testing.assert_close(value[0], together[key][row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", HERE)
def test_methods_permute_with_classes_shots_and_queries(name):
    method = any_method(name)
    values = prepared(method, features_for(method))
    found = method.score(gathered(values, SUPPORT), gathered(values, QUERY))
    turned = method.score(gathered(values, SUPPORT.flip(1, 2)), gathered(values, QUERY.flip(1)))
    torch.testing.assert_close(turned, found.flip(1, 2), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", HERE)
def test_methods_score_queries_and_episodes_apart(name):
    method = any_method(name)
    values = prepared(method, features_for(method))
    found = method.score(gathered(values, SUPPORT), gathered(values, QUERY))
    for e in range(2):
        for q in range(3):
            one = method.score(
                gathered(values, SUPPORT[e : e + 1]), gathered(values, QUERY[e : e + 1, q : q + 1])
            )
            torch.testing.assert_close(one[0, 0], found[e, q], atol=1e-5, rtol=1e-4)


VARIANTS = [
    *((name, {}) for name in HERE),
    *((name, {"shots": "after_matching"}) for name in ("bi_mhm", "otam", "hyrsm")),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_methods_say_truly_which_parts_of_a_score_lie_apart(name, options):
    method = any_method(name, **options)
    stirred(method)
    values = prepared(method, features_for(method))
    query = gathered(values, QUERY)
    found = method.score(gathered(values, SUPPORT), query)
    classes = [method.score(gathered(values, SUPPORT[:, n : n + 1]), query) for n in range(2)]
    shots = [method.score(gathered(values, SUPPORT[:, :, k : k + 1]), query) for k in range(2)]
    classes_apart = torch.allclose(torch.cat(classes, dim=2), found, atol=1e-5, rtol=1e-4)
    assert classes_apart == method.classes_apart
    if method.classes_apart:
        shots_apart = torch.allclose(sum(shots) / 2, found, atol=1e-5, rtol=1e-4)
        assert shots_apart == method.shots_apart


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_methods_that_average_shots_need_the_mean_alone(name, options):
    method = any_method(name, **options)
    stirred(method)
    values = prepared(method, features_for(method))
    support, query = gathered(values, SUPPORT), gathered(values, QUERY)
    mean = {
        key: value.double().mean(dim=2, keepdim=True).to(value) for key, value in support.items()
    }
    same = torch.allclose(
        method.score(mean, query), method.score(support, query), atol=1e-5, rtol=1e-4
    )
    assert same == method.averages_shots


@torch.no_grad()
def stirred(method):
    for parameter in method.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))


@pytest.mark.parametrize("name", HERE)
def test_trainable_methods_have_weights_and_pass_gradients_to_all(name):
    method = any_method(name)
    assert method.trainable == any(True for _ in method.parameters())
    if not method.trainable or name == "i2st":
        return
    stirred(method)
    scored(method.train(), features_for(method)).log_softmax(dim=-1)[..., 0].sum().backward()
    for key, parameter in method.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


# --- the registry ---


def test_methods_are_listed_by_name():
    assert set(method_names()) >= {"bi_mhm", "i2st", "otam", "protonet"}
    assert method_names() == sorted(method_names())


def test_unknown_method_names_the_known_ones():
    with pytest.raises(BackendError, match="'trx9' .did you mean 'trx'.*known: .*protonet"):
        get_method("trx9")


def test_listing_methods_imports_no_method():
    code = (
        "import sys; from i2st_model.methods import method_names; method_names(); "
        "print([m for m in sys.modules if m.startswith('i2st_model.methods.') or m == 'torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# --- options behind the name ---


def test_options_behind_a_name_are_those_of_the_constructor():
    features = embeddings()
    typed = get_method("otam:temperature=2:centre=false:shots=after_matching")
    given = get_method("otam", temperature=2.0, centre=False, shots="after_matching")
    assert torch.equal(scored(typed, features), scored(given, features))
    assert typed.name == "otam:temperature=2:centre=false:shots=after_matching"
    assert (given.name, get_method("random:seed=7").seed) == ("otam", 7)
    assert get_method("linear_probe:regularisation=1e-3").regularisation == 0.001
    assert get_method("clip_zero_shot:template={class}!").template == "{class}!"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "otam:temprature=1",
            r"'temprature' \(did you mean 'temperature'\?\); known: centre, shots, temperature; ",
        ),
        ("protonet:seed=1", "protonet has no option 'seed'; known: none; leave it out"),
        ("otam:temperature=warm", "temperature='warm' is no number"),
        ("otam:shots=none", "shots='none' is unknown; one of before_matching, after_matching"),
        ("otam:centre", "has 'centre' behind its name; OPTION=VALUE was needed"),
        ("hyrsm:heads=two", "heads='two' is no whole number"),
    ],
)
def test_senseless_options_behind_a_name_are_refused(spec, message):
    with pytest.raises(ConfigError, match=message):
        get_method(spec)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_classes_are_found_by_name(name):
    assert method_class(name).name == name
