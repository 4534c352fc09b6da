"""Every value of every switch of the network: it builds, trains, keeps videos apart, matters.

The values come from the annotations of `NetworkConfig`, so that a switch without a test fails.
"""

from dataclasses import fields
from typing import Literal, get_args, get_origin

import pytest
import torch

from i2st_model.config import NetworkConfig, network_config
from i2st_model.losses import base_class_loss, episode_loss, mask_loss
from i2st_model.network import build_network

B, T, C, E, GRID = 6, 4, 12, 7, 4
BASE = {
    "token_dim": C,
    "grid": GRID,
    "embedding_dim": E,
    "base_classes": 3,
    "pca_dim": 10,
    "dim": 8,
    "heads": 2,
    "mask_width": 8,
    "num_instances": 2,
    "compound_tokens": 3,
    "dropout": 0.0,
    "channel_dropout": 0.0,
}
NUMBERS = {
    "base_classes": [0],
    "pca_dim": [6],
    "centre": [False],
    "scale": [0.0, 3.0],
    "pool_grid": [2],
    "dim": [12, 16],
    "heads": [1, 4],
    "dropout": [0.5],
    "channel_dropout": [0.5],
    "num_instances": [1, 4],
    "perception_layers": [1, 3],
    "mask_floor": [0.0, 1.0],
    "mask_width": [4],
    "instance_init": [0.0],
    "spatial_temporal_pairs": [0, 2, 3],
    "global_weight": [0.0, 1.0],
    "compound_tokens": [1, 8],
    "focused_tokens": [1, 5],
    "cosine_epsilon": [0.01],
    "otam_temperature": [0.1],
    "logit_scale": [16.0],
}
COMPANIONS = {
    # What a switch needs beside it to have a meaning.
    "pooled_masks": [{}, {"instances": "masked_attention"}],
    "attention_order": [{}, {"spatial_temporal_pairs": 2}],
    "attention_scope": [{}, {"spatial_temporal_pairs": 2, "instances": "queries"}],
    "compound_tokens": [{"global_matching": "compound"}],
    "focused_tokens": [{"global_matching": "compound"}],
    "otam_temperature": [{"global_matching": "otam"}],
    "prototypes": [{}, {"cross_video": "inter_relation"}],
    "image_token": [{}, {"instances": "none", "spatial_temporal_pairs": 0}],
    "pool_grid": [{}, {"instances": "masked_attention"}, {"image_token": "embedding"}],
}
SIZES = {"token_dim", "grid", "embedding_dim"}
"""Not choices: the shards decide them."""
STARTS = {"instance_init": ("head.mix.weight",), "attention_start": ("attention.", "fusion.")}
"""Beginnings of names of parameters whose start is what the switch decides."""


def cases():
    for field in fields(NetworkConfig):
        if get_origin(field.type) is Literal:
            values = [value for value in get_args(field.type) if value != field.default]
        else:
            values = [] if field.name in SIZES else NUMBERS[field.name]
        for value in values:
            for beside in COMPANIONS.get(field.name, [{}]):
                yield pytest.param(field.name, value, beside, id=f"{field.name}={value} {beside}")


CASES = list(cases())


def untrained(settings):
    """Parts of a network that a setting leaves without gradient."""
    if settings.get("num_instances") == 1:
        # One query attends to itself alone, so it has nothing to choose.
        return ".self_attention.query", ".self_attention.key", ".self_norm"
    if settings.get("image_token") == "embedding" and settings.get("instances") == "none":
        # Neither perception nor attention looks at single cells: nothing reads the grid.
        return (".projection.",)
    return ()


def features(batch=B):
    generator = torch.Generator().manual_seed(4)
    tokens = torch.randn(batch, T, GRID**2, C, generator=generator, dtype=torch.float64)
    embedding = torch.randn(batch, T, E, generator=generator, dtype=torch.float64)
    return tokens * 2 + 3, embedding - 1


def awake(settings):
    """A network whose zero-initialised parts have values, as after training."""
    network = build_network(network_config(settings)).double()
    network.fit_stem(*features(20))
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for parameter in network.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise * 0.2)
    return network


def with_weights_of(other, settings, start):
    """A network with another one's parameters, wherever both have one of the same name and shape.

    Stem and ``start`` stay its own.
    """
    network, weights = awake(settings), dict(other.named_parameters())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            shared = name in weights and weights[name].shape == parameter.shape
            if shared and not name.startswith(start):
                parameter.copy_(weights[name])
    return network


def gathered(descriptors):
    support = torch.tensor([[[0, 1], [2, 3]], [[2, 3], [0, 1]]])
    query = torch.tensor([[4, 5, 0], [5, 4, 1]])
    return (
        {name: value[query] for name, value in descriptors.items()},
        {name: value[support] for name, value in descriptors.items()},
    )


def one_loss(network):
    encoded = network(*features())
    labels = torch.tensor([[0, 1, 1], [1, 0, 0]])
    loss = episode_loss(network.logits(*gathered(encoded.descriptors)), labels)
    if encoded.base_logits is not None:
        loss = loss + base_class_loss(encoded.base_logits, torch.tensor([0, 1, 2] * 2))
    if encoded.mask_logits is not None:
        target = torch.rand(encoded.mask_logits.shape, generator=torch.Generator().manual_seed(8))
        loss = loss + mask_loss(encoded.mask_logits, target, torch.ones(B, T).bool())
    return loss


def outputs(network, *, training):
    """What anybody may see of a network: scores, base-class scores, masks."""
    torch.manual_seed(5)
    network.train(training)
    with torch.no_grad():
        encoded = network(*features(), with_masks=True)
        return [
            network.logits(*gathered(encoded.descriptors)),
            encoded.base_logits,
            encoded.mask_logits,
        ]


def differ(first, second):
    if first is None or second is None:
        return first is not second
    return first.shape != second.shape or (first - second).abs().max() > 1e-9


def test_every_choice_has_other_values_here():
    numbers = {f.name for f in fields(NetworkConfig) if get_origin(f.type) is not Literal}
    assert set(NUMBERS) == numbers - SIZES


@pytest.mark.parametrize(("name", "value", "beside"), CASES)
def test_switch_trains_every_parameter_of_its_network(name, value, beside):
    torch.manual_seed(1)
    settings = {**BASE, **beside, name: value}
    network = awake(settings).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    loss = one_loss(network)
    loss.backward()
    assert torch.isfinite(loss)
    for parameter_name, parameter in network.named_parameters():
        moved = parameter.grad is not None and parameter.grad.abs().max() > 1e-12
        allowed = any(part in f".{parameter_name}" for part in untrained(settings))
        assert moved or allowed, parameter_name
    optimizer.step()
    assert one_loss(network) != loss


@pytest.mark.parametrize(("name", "value", "beside"), CASES)
def test_switch_changes_what_the_network_says(name, value, beside):
    torch.manual_seed(1)
    plain = awake({**BASE, **beside})
    changed = with_weights_of(plain, {**BASE, **beside, name: value}, STARTS.get(name, ()))
    seen = [
        pair
        for training in (False, True)
        for pair in zip(
            outputs(plain, training=training), outputs(changed, training=training), strict=True
        )
    ]
    assert any(differ(*pair) for pair in seen)


@pytest.mark.parametrize(("name", "value", "beside"), CASES)
def test_switch_keeps_the_description_of_a_video_its_own(name, value, beside):
    torch.manual_seed(1)
    network = awake({**BASE, **beside, name: value}).train()
    tokens, embedding = features()
    together = network.describe(tokens, embedding)
    assert network.training
    for row in (0, B - 1):
        alone = network.describe(tokens[row : row + 1], embedding[row : row + 1])
        assert set(alone) == set(together)
        for key, found in alone.items():
            torch.testing.assert_close(found[0], together[key][row], atol=1e-12, rtol=1e-12)
