"""Methods against written-out rules, the registry, and their common protocol."""

import subprocess
import sys

import pytest
import torch

from i2st_model.config import preset
from i2st_model.matching import bi_mhm, otam
from i2st_model.methods import METHODS, get_method, method_names
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.network import build_network
from pipeline.errors import BackendError

B, T, D = 7, 4, 6
SUPPORT = torch.tensor([[[0, 1], [2, 3]], [[4, 0], [1, 2]]])
QUERY = torch.tensor([[5, 6, 4], [6, 3, 5]])


def embeddings():
    return torch.randn(B, T, D, dtype=torch.float64) + 2


def scored(method, features):
    prepared = method.prepare(Clips(features=features))
    support = {name: value[SUPPORT] for name, value in prepared.items()}
    query = {name: value[QUERY] for name, value in prepared.items()}
    return method.score(support, query)


def fitted(method, mean):
    method.fit(TrainStatistics(embedding_dim=D, mean_embedding=mean))
    return method


def test_protonet_matches_a_loop():
    features, mean = embeddings(), torch.full((D,), 2.0, dtype=torch.float64)
    method = fitted(get_method("protonet"), mean)
    found = scored(method, features)
    clips = []
    for clip in features:
        vector = sum(clip) / T - mean
        clips.append(vector / vector.square().sum().sqrt())
    for e in range(2):
        for q in range(3):
            for n in range(2):
                prototype = (clips[SUPPORT[e, n, 0]] + clips[SUPPORT[e, n, 1]]) / 2
                expected = -((clips[QUERY[e, q]] - prototype) ** 2).sum()
                assert found[e, q, n].item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "distance"),
    [("bi_mhm", bi_mhm), ("otam", lambda a, b: otam(a, b, temperature=0.5))],
)
def test_frame_methods_match_their_distance_of_centred_frames(name, distance):
    features, mean = embeddings(), torch.randn(D, dtype=torch.float64)
    method = fitted(get_method(name), mean)
    found = scored(method, features)
    for e in range(2):
        for n in range(2):
            first, second = features[SUPPORT[e, n, 0]], features[SUPPORT[e, n, 1]]
            prototype = (first + second) / 2 - mean
            for q in range(3):
                clip = features[QUERY[e, q]] - mean
                expected = -distance(clip[None, None], prototype[None, None]).item()
                assert found[e, q, n].item() == pytest.approx(expected, abs=1e-12)


def test_otam_takes_its_temperature():
    features = embeddings()
    soft = scored(get_method("otam", centre=False, temperature=2.0), features)
    hard = scored(get_method("otam", centre=False, temperature=0.01), features)
    assert (soft > hard).all()


@pytest.mark.parametrize("name", ["protonet", "bi_mhm", "otam"])
def test_centring_removes_what_all_frames_share(name):
    features = embeddings()
    shift = torch.randn(D, dtype=torch.float64) * 10
    method = fitted(get_method(name), features.mean(dim=(0, 1)))
    moved = fitted(get_method(name), (features + shift).mean(dim=(0, 1)))
    torch.testing.assert_close(scored(moved, features + shift), scored(method, features))
    plain = get_method(name, centre=False)
    moved_plain = scored(plain, features + shift) - scored(plain, features)
    assert moved_plain.abs().max() > 1e-3


@pytest.mark.parametrize("name", ["protonet", "bi_mhm", "otam"])
def test_centring_needs_fit(name):
    with pytest.raises(ValueError, match="call fit first"):
        get_method(name).prepare(Clips(features=embeddings()))


def test_baselines_widen_half_precision():
    method = fitted(get_method("bi_mhm"), torch.zeros(D, dtype=torch.float16))
    assert method.prepare(Clips(features=embeddings().half()))["frames"].dtype == torch.float32


def small_network():
    config = preset("i2st", token_dim=D, grid=3, dim=8, heads=2, mask_width=8)
    return build_network(config)


def test_i2st_prepares_and_scores_with_its_network():
    network = small_network()
    method = get_method("i2st", network=network)
    assert not network.training
    tokens = torch.randn(B, T, 9, D)
    described = network.describe(tokens)
    expected = network.logits(
        {name: value[QUERY] for name, value in described.items()},
        {name: value[SUPPORT] for name, value in described.items()},
    )
    found = scored(method, tokens)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_prepare_clips_one_by_one(name):
    method = get_method(name, **({"network": small_network()} if name == "i2st" else {}))
    fitted(method, torch.zeros(D))
    shape = (B, T, 9, D) if method.needs == "tokens" else (B, T, D)
    features = torch.randn(shape)
    together = method.prepare(Clips(features=features))
    assert method.name == name
    for row in range(B):
        for key, value in method.prepare(Clips(features=features[row : row + 1])).items():
            torch.testing.assert_close(value[0], together[key][row], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_methods_permute_with_classes(name):
    method = get_method(name, **({"network": small_network()} if name == "i2st" else {}))
    fitted(method, torch.zeros(D))
    shape = (B, T, 9, D) if method.needs == "tokens" else (B, T, D)
    prepared = method.prepare(Clips(features=torch.randn(shape)))
    support = {key: value[SUPPORT] for key, value in prepared.items()}
    query = {key: value[QUERY] for key, value in prepared.items()}
    turned = {key: value.flip(1) for key, value in support.items()}
    expected = method.score(support, query).flip(2)
    torch.testing.assert_close(method.score(turned, query), expected)


def test_methods_are_listed_by_name():
    assert set(method_names()) >= {"bi_mhm", "i2st", "otam", "protonet"}
    assert method_names() == sorted(method_names())


def test_unknown_method_names_the_known_ones():
    with pytest.raises(BackendError, match="unknown method 'trx9'; known: .*protonet"):
        get_method("trx9")


def test_listing_methods_imports_no_method():
    code = (
        "import sys; from i2st_model.methods import method_names; method_names(); "
        "print([m for m in sys.modules if m.startswith('i2st_model.methods.') or m == 'torch'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
