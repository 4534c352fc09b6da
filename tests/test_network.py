"""The composed network: step 0, switches, stem, one description per clip, gradients."""

import dataclasses
import itertools
import math

import pytest
import torch
import written_out

from i2st_model import matching
from i2st_model.config import PRESETS, NetworkConfig, network_config, preset
from i2st_model.layers import ClipDropout
from i2st_model.losses import base_class_loss, episode_loss, mask_loss
from i2st_model.network import build_network
from i2st_model.projection import DescriptorHead
from i2st_model.stem import Stem
from pipeline.errors import ConfigError

B, T, L, C = 6, 4, 9, 12


def tiny(name="i2st", **settings):
    defaults = {"token_dim": C, "grid": 3, "dim": 8, "heads": 2, "mask_width": 8, "pca_dim": 10}
    return preset(name, **{**defaults, "num_instances": 2, "compound_tokens": 3, **settings})


def built(name="i2st", **settings):
    network = build_network(tiny(name, **settings))
    network.fit_stem(torch.randn(50, C) @ torch.randn(C, C) + 3)
    return network


def awake(name="i2st", **settings):
    """A network in test mode whose zero-initialised outputs have values, as after training."""
    return written_out.awake(built(name, **settings))


def episodes(descriptors, way=2, shot=2):
    """Two episodes over six clips: clips 0..3 as support, the last two as queries."""
    support = torch.tensor([[[0, 1], [2, 3]], [[2, 3], [0, 1]]])[:, :way, :shot]
    query = torch.tensor([[4, 5, 0], [5, 4, 1]])
    gathered = [
        {name: value[rows] for name, value in descriptors.items()} for rows in (query, support)
    ]
    return gathered[0], gathered[1]


SWITCHES = [
    {"instances": "masked_pool", "pooled_masks": "each"},
    {"instances": "masked_attention"},
    {"instances": "masked_attention", "pooled_masks": "each"},
    {"instances": "queries"},
    {"instances": "queries", "num_instances": 1, "perception_layers": 1},
    {"instances": "autodecoder"},
    {"instances": "none"},
    {"spatial_temporal_pairs": 0},
    {"spatial_temporal_pairs": 2},
    {"spatial_temporal_pairs": 3, "attention_order": "temporal_first"},
    {"spatial_temporal_pairs": 2, "attention_parts": "spatial"},
    {"attention_parts": "temporal", "attention_order": "temporal_first"},
    {"base_level": "frame"},
    {"attention_scope": "cross"},
    {"attention_scope": "cross", "spatial_temporal_pairs": 2, "instances": "queries"},
    {"global_fusion": "mean"},
    {"global_matching": "otam"},
    {"global_matching": "compound"},
    {"global_matching": "compound", "global_fusion": "mean"},
    {"global_weight": 0.0},
    {"global_weight": 1.0},
    {"global_when": "training"},
    {"global_when": "test"},
    {"prototypes": "after_matching"},
    {"cross_video": "inter_relation"},
    {
        "cross_video": "inter_relation",
        "prototypes": "after_matching",
        "global_matching": "compound",
    },
    {"positions": "none"},
    {"descriptor_norm": "none"},
    {"centre": False, "scale": 0.0},
    {"dim": 16, "heads": 4},
    {"base_classes": 0},
    {"dropout": 0.0, "channel_dropout": 0.0},
]


@pytest.mark.parametrize("settings", [{}, *SWITCHES], ids=str)
def test_network_trains_and_tests_under_every_switch(settings):
    network = built(**{"base_classes": 3, **settings}).train()
    config = network.config
    encoded = network(torch.randn(B, T, L, C) + 3)
    logits = network.logits(*episodes(encoded.descriptors))
    loss = episode_loss(logits, torch.tensor([[0, 1, 1], [1, 0, 0]]))
    if config.base_classes:
        loss = loss + base_class_loss(encoded.base_logits, torch.tensor([0, 1, 2] * 2))
    if config.instances != "none":
        target = torch.rand(B, T, config.mask_side, config.mask_side)
        loss = loss + mask_loss(encoded.mask_logits, target, torch.ones(B, T).bool())
    loss.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert network.projection.weight.grad.abs().max() > 0
    described = network.describe(torch.randn(B, T, L, C) + 3)
    assert described["local"].shape == (B, T, config.dim)
    assert described["global"].shape == (B, config.num_global_tokens, config.dim)
    assert network.training
    assert network.eval().logits(*episodes(described)).shape == (2, 3, 2)


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_build_and_describe(name):
    network = build_network(preset(name, token_dim=C, grid=3))
    assert network.describe(torch.randn(2, T, L, C))["local"].shape == (2, T, network.config.dim)


def projected(network, tokens):
    return network.projection(network.stem(tokens).mean(dim=2))


@pytest.mark.parametrize(
    "settings",
    [
        {"instances": "none"},
        {"instances": "queries", "instance_init": 0.0},
        {"instances": "autodecoder", "instance_init": 0.0, "spatial_temporal_pairs": 2},
        # Under a mask of equal weights the instance is the mean token, and cosines ignore the 1.5.
        {"instances": "masked_pool", "mask_floor": 1.0},
        {"instances": "masked_attention", "mask_floor": 1.0, "attention_order": "temporal_first"},
    ],
    ids=str,
)
def test_step_0_is_bi_mhm_on_the_projected_centred_tokens(settings):
    network = built(global_weight=0.0, descriptor_norm="none", **settings).double().eval()
    tokens = torch.randn(B, T, L, C, dtype=torch.float64) + 3
    query, support = episodes(network.describe(tokens))
    frames_query, frames_support = episodes({"frames": projected(network, tokens)})
    expected = matching.bi_mhm(frames_query["frames"], frames_support["frames"].mean(dim=2))
    torch.testing.assert_close(network.logits(query, support), -8 * expected)


def test_step_0_under_layer_normalisation_is_bi_mhm_on_the_normalised_tokens():
    network = built(global_weight=0.0, instances="none").double().eval()
    tokens = torch.randn(B, T, L, C, dtype=torch.float64) + 3
    query, support = episodes(network.describe(tokens))
    frames = projected(network, tokens)
    frames = frames - frames.mean(-1, keepdim=True)
    frames = frames / (frames.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    frames_query, frames_support = episodes({"frames": frames})
    expected = matching.bi_mhm(frames_query["frames"], frames_support["frames"].mean(dim=2))
    torch.testing.assert_close(network.logits(query, support), -8 * expected)


def test_linear_preset_projects_the_mean_token_of_each_frame():
    network = awake("linear")
    tokens = torch.randn(B, T, L, C, dtype=torch.float64)
    expected = network.head.norm(network.projection(network.stem(tokens)).mean(dim=2))
    torch.testing.assert_close(network.describe(tokens)["local"], expected)


@pytest.mark.parametrize(
    "settings", [{}, {"instances": "queries"}, {"global_matching": "compound"}]
)
def test_describe_is_independent_of_batch_mates_and_repeatable(settings):
    network = awake(**settings)
    tokens = torch.randn(B, T, L, C, dtype=torch.float64)
    together = network.describe(tokens)
    for name, value in network.describe(tokens).items():
        assert torch.equal(value, together[name])
    for row in range(B):
        for name, value in network.describe(tokens[row : row + 1]).items():
            torch.testing.assert_close(value[0], together[name][row], atol=1e-12, rtol=1e-12)


def test_encode_is_random_in_training_and_not_at_test():
    network = built(dropout=0.0).train()
    stem_tokens = network.stem(torch.randn(B, T, L, C))
    assert not torch.equal(network.encode(stem_tokens).local, network.encode(stem_tokens).local)
    network.eval()
    assert torch.equal(network.encode(stem_tokens).local, network.encode(stem_tokens).local)


def test_channel_dropout_drops_whole_channels_of_a_clip():
    dropped = ClipDropout(0.5)(torch.ones(4, T, L, 10))
    for clip in dropped:
        for channel in range(10):
            values = clip[..., channel].unique()
            assert len(values) == 1
            assert values.item() in (0.0, 2.0)
    assert (dropped[0, 0, 0] != dropped[1, 0, 0]).any()


@pytest.mark.parametrize(
    "settings", [{}, {"prototypes": "after_matching"}, {"cosine_epsilon": 0.3}], ids=str
)
@pytest.mark.parametrize("kind", ["pooled", "otam", "compound", "focused"])
def test_logits_match_a_loop_over_episodes(kind, settings):
    if kind == "focused":
        network = awake(global_matching="compound", focused_tokens=4, **settings)
    else:
        network = awake(global_matching=kind, **settings)
    query, support = episodes(network.describe(torch.randn(B, T, L, C, dtype=torch.float64)))
    found = network.logits(query, support)
    for e in range(2):
        for q in range(3):
            for n in range(2):
                shots = {name: value[e, n] for name, value in support.items()}
                if network.config.prototypes == "before_matching":
                    shots = {name: value.mean(0, keepdim=True) for name, value in shots.items()}
                clip = {name: value[e, q] for name, value in query.items()}
                total, epsilon = 0.0, network.config.cosine_epsilon
                for k in range(len(shots["local"])):
                    one = {name: value[k] for name, value in shots.items()}
                    local = pair(matching.bi_mhm, clip["local"], one["local"], epsilon)
                    total += 0.7 * local + 0.3 * global_pair(kind, clip, one, epsilon)
                expected = -8 * total / len(shots["local"])
                assert found[e, q, n].item() == pytest.approx(expected, abs=1e-10)


def pair(distance, first, second, epsilon=0.0):
    return distance(first[None, None], second[None, None], epsilon=epsilon).item()


def cosines(first, second, epsilon):
    lengths = first.norm(dim=-1) * second.norm(dim=-1)
    return (first * second).sum(dim=-1) / (lengths + epsilon)


def global_pair(kind, clip, prototype, epsilon):
    if kind == "focused":
        one_to_one = global_pair("compound", clip, prototype, epsilon)
        costs = 1 - cosines(clip["focused"][:, None], prototype["focused"][None], epsilon)
        orders = itertools.permutations(range(len(costs)))
        assigned = min(sum(costs[f, order[f]].item() for f in range(4)) for order in orders) / 4
        return (3 * one_to_one + 4 * 2 * assigned) / 7
    if kind == "otam":
        return pair(matching.otam, clip["local"], prototype["local"], epsilon)
    return (2 * (1 - cosines(clip["global"], prototype["global"], epsilon))).mean().item()


@pytest.mark.parametrize("cross_video", ["none", "inter_relation"])
def test_logits_permute_with_classes_and_ignore_the_order_of_shots(cross_video):
    network = awake(cross_video=cross_video)
    query, support = episodes(network.describe(torch.randn(B, T, L, C, dtype=torch.float64)))
    expected = network.logits(query, support).flip(2)
    turned = {name: value.flip(1).flip(2) for name, value in support.items()}
    torch.testing.assert_close(network.logits(query, turned), expected)


def test_inter_relation_scores_a_query_by_its_episode_and_not_by_other_queries():
    network = awake(cross_video="inter_relation")
    query, support = episodes(network.describe(torch.randn(B, T, L, C, dtype=torch.float64)))
    found = network.logits(query, support)
    first = {name: value[:, :1] for name, value in query.items()}
    torch.testing.assert_close(network.logits(first, support), found[:, :1])
    # The other class of the episode changes a class's score, which plain matching cannot do.
    other = {name: value.clone() for name, value in support.items()}
    for value in other.values():
        value[:, 1] += torch.randn_like(value[:, 1])
    moved = (network.logits(query, other) - found)[..., 0].abs().max()
    assert moved > 1e-6
    plain = awake()
    moved = (plain.logits(query, other) - plain.logits(query, support))[..., 0].abs().max()
    assert moved == 0


@pytest.mark.parametrize("prototypes", ["before_matching", "after_matching"])
def test_inter_relation_matches_a_loop_over_queries(prototypes, monkeypatch):
    network = awake(cross_video="inter_relation", prototypes=prototypes, global_weight=0.0)
    query, support = episodes(network.describe(torch.randn(B, T, L, C, dtype=torch.float64)))
    relation, expected = network.relation, torch.empty(2, 3, 2, dtype=torch.float64)
    for e, q in itertools.product(range(2), range(3)):
        clips = [query["local"][e, q], *support["local"][e].flatten(0, 1)]
        pooled = torch.stack([relation.norm(clip.mean(0)) for clip in clips]).unsqueeze(0)
        read = relation.attention(pooled, pooled)[0]
        seen = [
            torch.stack([relation.back(torch.cat([frame, read[place]])) for frame in clip])
            for place, clip in enumerate(clips)
        ]
        for n in range(2):
            shots = seen[1 + 2 * n : 3 + 2 * n]
            if prototypes == "before_matching":
                shots = [(shots[0] + shots[1]) / 2]
            distances = [pair(matching.bi_mhm, seen[0], shot) for shot in shots]
            expected[e, q, n] = -8 * sum(distances) / len(distances)
    torch.testing.assert_close(network.logits(query, support), expected)
    # A chunk of one query at a time gives the same.
    monkeypatch.setattr("i2st_model.prototypes.RELATED_BYTES", 1)
    torch.testing.assert_close(network.logits(query, support), expected)


def test_inter_relation_starts_as_plain_matching():
    network = built(cross_video="inter_relation").eval()
    plain = build_network(dataclasses.replace(network.config, cross_video="none")).eval()
    query, support = episodes(network.describe(torch.randn(B, T, L, C)))
    torch.testing.assert_close(network.logits(query, support), plain.logits(query, support))


@pytest.mark.parametrize(("when", "weights"), [("training", (0.3, 0.0)), ("test", (0.0, 0.3))])
def test_global_weight_applies_only_when_told(when, weights):
    network = awake(global_when=when)
    always = {w: awake_like(network, w) for w in set(weights)}
    query, support = episodes(network.describe(torch.randn(B, T, L, C, dtype=torch.float64)))
    for mode, weight in zip((True, False), weights, strict=True):
        expected = always[weight].logits(query, support)
        torch.testing.assert_close(network.train(mode).logits(query, support), expected)


def awake_like(network, weight):
    config = dataclasses.replace(network.config, global_when="always", global_weight=weight)
    return build_network(config).double()


def test_masks_are_made_in_training_and_on_request_only():
    network = built()
    stem_tokens = network.stem(torch.randn(B, T, L, C))
    assert network.train().encode(stem_tokens).mask_logits.shape == (B, T, 12, 12)
    assert network.eval().encode(stem_tokens).mask_logits is None
    assert network.encode(stem_tokens, with_masks=True).mask_logits.shape == (B, T, 12, 12)


def test_state_of_a_network_makes_another_equal():
    network, other = awake(), build_network(tiny()).double().eval()
    other.load_state_dict(network.state_dict())
    tokens = torch.randn(B, T, L, C, dtype=torch.float64)
    assert torch.equal(network.describe(tokens)["local"], other.describe(tokens)["local"])
    assert other.stem.fitted


def test_fast_and_slow_parameters_are_all_parameters_once():
    network = built(base_classes=3)
    fast, slow = network.fast_parameters(), network.slow_parameters()
    assert len(fast) + len(slow) == len(list(network.parameters()))
    assert {id(p) for p in fast}.isdisjoint(id(p) for p in slow)
    expected = [*network.projection.parameters(), *network.perception.decoder.parameters()]
    assert {id(p) for p in fast} == {id(p) for p in expected}
    more = built_with_embedding()
    named = {name for name, p in more.named_parameters() for f in more.fast_parameters() if p is f}
    outer = {name.split(".")[0] for name in named}
    assert outer == {"projection", "image_projection", "perception"}


def built_with_embedding():
    return build_network(tiny(image_token="embedding", embedding_dim=5))


@pytest.mark.parametrize("level", ["video", "frame"])
def test_base_classes_are_told_from_descriptors_and_the_global_tokens(level):
    network = awake(base_classes=3, base_level=level, global_matching="compound")
    encoded = network(torch.randn(B, T, L, C, dtype=torch.float64))
    for b in range(B):
        frames = list(encoded.local[b])
        if level == "video":
            frames = [sum(frames) / T]
        for place, frame in enumerate(frames):
            read = frame + sum(encoded.global_[b]) / 3
            expected = network.base_head.weight @ read + network.base_head.bias
            torch.testing.assert_close(encoded.base_logits[b, place], expected)
        assert encoded.base_logits.shape[1] == len(frames)


def test_projection_starts_as_the_leading_components():
    network = built(pca_dim=10, dim=8)
    stem_tokens = torch.randn(3, 10)
    assert torch.equal(network.projection(stem_tokens), stem_tokens[:, :8])
    wide = built(pca_dim=6, dim=80)
    assert torch.equal(wide.projection(stem_tokens[:, :6])[:, :6], stem_tokens[:, :6])
    # Features beyond the components begin small, yet not at zero.
    assert wide.projection.weight[6:].std().item() == pytest.approx(0.02, rel=0.2)
    assert wide.projection.bias.abs().max() == 0


def test_local_descriptor_is_the_normalised_mix_of_image_and_mean_instance():
    head = written_out.awake(DescriptorHead(tiny()))
    frames = torch.randn(2, T, 4, 8, dtype=torch.float64)
    found = head(frames)
    for b, t in itertools.product(range(2), range(T)):
        image, *instances = frames[b, t]
        mixed = head.mix.weight @ torch.cat([image, sum(instances) / 3]) + head.mix.bias
        centred = mixed - mixed.mean()
        normed = centred / (centred.square().mean() + 1e-5).sqrt()
        torch.testing.assert_close(found[b, t], normed * head.norm.weight + head.norm.bias)


def test_new_parts_leave_the_weights_of_all_others_as_they_were():
    torch.manual_seed(0)
    plain = list(build_network(tiny(global_matching="compound")).named_parameters())
    torch.manual_seed(0)
    settings = {"image_token": "embedding", "embedding_dim": 5, "focused_tokens": 2}
    more = build_network(tiny(global_matching="compound", **settings)).named_parameters()
    for (name, value), (other, kept) in zip(plain, more, strict=False):
        assert name == other
        assert torch.equal(value, kept)


@pytest.mark.parametrize("pairs", [0, 1])
def test_image_token_from_the_embedding_starts_as_bi_mhm_on_its_components(pairs):
    settings = {"image_token": "embedding", "embedding_dim": 9, "instances": "none"}
    settings["spatial_temporal_pairs"] = pairs  # without attention nothing but it is projected
    network = build_network(tiny(global_weight=0.0, descriptor_norm="none", **settings)).double()
    sample = torch.randn(40, 9, dtype=torch.float64) * torch.arange(9.0, 0, -1)
    network.fit_stem(torch.randn(50, C), sample + 2)
    tokens = torch.randn(B, T, L, C, dtype=torch.float64)
    embedding = torch.randn(B, T, 9, dtype=torch.float64) + 2
    network.eval()
    query, support = episodes(network.describe(tokens, embedding))
    # Cosines ignore the common scale, and a rotation changes none: eight components remain of nine.
    centred = sample - sample.mean(dim=0)
    kept = torch.linalg.svd(centred, full_matrices=False).Vh[:8]
    frames = (embedding - (sample + 2).mean(dim=0)) @ kept.T
    frames_query, frames_support = episodes({"frames": frames})
    expected = matching.bi_mhm(frames_query["frames"], frames_support["frames"].mean(dim=2))
    torch.testing.assert_close(network.logits(query, support), -8 * expected, rtol=1e-5, atol=1e-5)


def test_stem_pads_an_embedding_that_is_narrower_than_the_components():
    stem = Stem(tiny(image_token="embedding", embedding_dim=3))
    stem.fit(torch.randn(50, C), torch.randn(50, 3))
    found = stem(torch.randn(2, T, L, C), torch.randn(2, T, 3))
    assert found.shape == (2, T, 1 + L, 10)
    assert found[:, :, 0, :3].abs().min() > 0
    assert found[:, :, 0, 3:].abs().max() == 0


def test_stem_asks_for_the_embedding_where_it_is_the_image_token():
    stem = Stem(tiny(image_token="embedding", embedding_dim=3))
    with pytest.raises(ValueError, match="embedding is absent"):
        stem(torch.randn(2, T, L, C))
    with pytest.raises(ValueError, match="two or more embeddings of 3 channels"):
        stem.fit(torch.randn(50, C))


def test_stem_pools_neighbouring_cells():
    stem = Stem(tiny(grid=4, pool_grid=2))
    tokens = torch.randn(2, T, 16, C)
    found = stem(tokens).unflatten(2, (2, 2))
    image = stem.components.T @ tokens.transpose(2, 3)
    image = image.unflatten(3, (4, 4)) - (stem.mean @ stem.components)[:, None, None]
    for y, x in itertools.product(range(2), range(2)):
        block = image[..., 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean(dim=(3, 4))
        torch.testing.assert_close(found[:, :, y, x], block)


def test_encode_refuses_tokens_of_another_grid():
    with pytest.raises(ValueError, match=r"\(2, 4, 16, 10\).*\(B, T, 9, 10\)"):
        built().encode(torch.randn(2, T, 16, 10))


def test_stem_centres_and_keeps_the_largest_variances_in_order():
    scales = torch.tensor([1.0, 9, 3, 5])
    sample = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(2)) * scales + 7
    stem = Stem(preset("i2st", token_dim=4, grid=1, pca_dim=3))
    stem.fit(sample)
    outputs = stem(sample)
    assert outputs.mean(dim=0).abs().max() < 1e-4
    assert outputs.square().mean().item() == pytest.approx(1, abs=1e-4)
    kept = outputs.std(dim=0)
    assert (kept / kept[0]).tolist() == pytest.approx([1, 5 / 9, 3 / 9], abs=0.02)
    covariance = outputs.T @ outputs / len(outputs)
    assert (covariance - covariance.diag().diag()).abs().max() < 1e-3


def test_stem_without_scale_or_centre_is_a_rotation():
    config = preset("i2st", token_dim=4, grid=1, pca_dim=4, scale=0.0, centre=False)
    stem = Stem(config)
    sample = torch.randn(100, 4) + 7
    stem.fit(sample)
    torch.testing.assert_close(stem(sample).norm(dim=1), sample.norm(dim=1), atol=1e-4, rtol=1e-5)


def test_stem_does_not_depend_on_the_sign_of_the_sample_order():
    sample = torch.randn(60, 2, C)
    first, second = Stem(tiny()), Stem(tiny())
    first.fit(sample)
    second.fit(sample.flip(0))
    torch.testing.assert_close(first.components, second.components, atol=1e-4, rtol=1e-4)


def test_stem_components_point_where_their_largest_entry_is_positive():
    stem = Stem(tiny())
    for sample in (torch.randn(60, C), -torch.randn(80, C) * torch.arange(1.0, 1 + C)):
        stem.fit(sample)
        for component in stem.components.T:
            assert component[component.abs().argmax()] > 0


def test_stem_of_tokens_that_are_all_alike_stays_finite():
    stem = Stem(tiny())
    stem.fit(torch.full((20, C), 3.0))
    assert torch.isfinite(stem(torch.randn(2, T, L, C))).all()


def test_stem_takes_half_precision_tokens():
    stem = built().stem
    tokens = torch.randn(2, T, L, C).half()
    assert torch.equal(stem(tokens), stem(tokens.float()))
    assert stem(tokens).dtype == torch.float32


def test_stem_refuses_a_sample_of_another_width():
    with pytest.raises(ValueError, match=r"\(5, 7\).*12 channels"):
        Stem(tiny()).fit(torch.randn(5, 7))


def test_config_returns_from_its_dictionary():
    config = tiny("linear", base_classes=4)
    assert network_config(config.to_dict()) == config
    assert set(config.to_dict()) == {field.name for field in dataclasses.fields(NetworkConfig)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"instances": "boxes"}, "instances='boxes' is unknown; one of masked_pool, "),
        ({"spatial_temporal_pairs": 4}, "spatial_temporal_pairs=4 is out of range; 0 to 3"),
        ({"global_weight": 1.5}, "global_weight=1.5 is out of range; 0 to 1"),
        ({"global_weight": math.nan}, "global_weight=nan is out of range"),
        ({"dim": 10**9}, "dim=1000000000 is out of range; 4 to 8192"),
        ({"dim": "wide"}, "dim='wide' is no whole number"),
        ({"num_instances": True}, "num_instances=True is no whole number"),
        ({"centre": 1}, "centre=1 is no truth value"),
        ({"instances": ["queries"]}, r"instances=\['queries'\] is unknown"),
        ({"dim": 30, "heads": 8}, "dim=30 with heads=8"),
        ({"dim": 6, "heads": 2}, "dim=6 with heads=2; dim must be a multiple of heads and of 4"),
        ({"instances": "none", "attention_scope": "cross"}, "use attention_scope='joint'"),
        ({"grid": 9, "pool_grid": 2}, "pool_grid=2 with grid=9; a divisor"),
        ({"image_token": "embedding"}, "'embedding' with embedding_dim=0"),
        ({"focused_tokens": 4}, "focused_tokens=4 with global_matching='pooled'"),
        ({"focused_tokens": 11}, "focused_tokens=11 is out of range; 0 to 10"),
        ({"colour": 1}, "unknown network setting 'colour'"),
    ],
)
def test_config_refuses_what_cannot_be_built(settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**settings)


def test_settings_lie_on_top_of_a_preset():
    config = preset("linear", token_dim=4, grid=1, global_weight=0.4)
    assert (config.global_weight, config.global_fusion) == (0.4, "mean")


def test_config_names_what_is_absent_and_what_is_known():
    with pytest.raises(ConfigError, match="'grid' is absent"):
        network_config({"token_dim": 4})
    with pytest.raises(ConfigError, match="unknown preset 'best'; known: i2st, linear"):
        preset("best", token_dim=4, grid=1)
