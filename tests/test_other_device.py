"""Everything between features and loss on a device other than the CPU: torch's ``meta`` device.

It holds no values, but like a GPU it refuses to meet a tensor that was left on the CPU, and it has
no value to wait for, so that a hidden wait for the device fails as well.
"""

from contextlib import nullcontext

import pytest
import torch
from test_switches import BASE, CASES, GRID, B, C, E, T, untrained

from i2st_model.config import network_config
from i2st_model.losses import base_class_loss, episode_loss, mask_loss
from i2st_model.methods import get_method, method_names
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.network import build_network

META = torch.device("meta")
EPISODES, WAY, SHOT, QUERIES, DIM = 2, 5, 3, 10, 16
OF_TEXT_OR_RUNS = ("clip_zero_shot", "i2st")


def gathered(descriptors, places):
    return {name: value[places] for name, value in descriptors.items()}


def loss_of(network):
    tokens = torch.empty(B, T, GRID**2, C, device=META)
    encoded = network(tokens, torch.empty(B, T, E, device=META))
    support = torch.zeros(2, 2, 2, dtype=torch.int64, device=META)
    query = torch.zeros(2, 3, dtype=torch.int64, device=META)
    logits = network.logits(*(gathered(encoded.descriptors, at) for at in (query, support)))
    loss = episode_loss(logits, query)
    if encoded.base_logits is not None:
        classes = torch.zeros(B, dtype=torch.int64, device=META)
        loss = loss + base_class_loss(encoded.base_logits, classes)
    if encoded.mask_logits is not None:
        coverage = torch.empty(encoded.mask_logits.shape, device=META)
        valid = torch.empty(B, T, dtype=torch.bool, device=META)
        loss = loss + mask_loss(encoded.mask_logits, coverage, valid)
    return loss


def gradient_devices(module):
    return {
        name: None if one.grad is None else one.grad.device
        for name, one in module.named_parameters()
    }


@pytest.mark.parametrize(("name", "value", "beside"), CASES)
def test_network_and_losses_stay_on_the_device_of_the_features(name, value, beside):
    settings = {**BASE, **beside, name: value}
    network = build_network(network_config(settings)).to(META).train()
    loss = loss_of(network)
    assert (loss.device, loss.shape) == (META, ())
    loss.backward()
    for parameter, device in gradient_devices(network).items():
        allowed = any(part in f".{parameter}" for part in untrained(settings))
        assert device == META or allowed, parameter


@pytest.mark.parametrize("name", [n for n in method_names() if n not in OF_TEXT_OR_RUNS])
@pytest.mark.parametrize("shot", [1, SHOT])
def test_methods_stay_on_the_device_of_the_features(monkeypatch, name, shot):
    # Whether the linear probe has converged is the one thing that is waited for.
    monkeypatch.setattr(torch.Tensor, "any", lambda tensor: True)
    monkeypatch.setattr(torch.Tensor, "__float__", lambda tensor: 0.0)
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no meta
    method = get_method(name)
    mean = torch.zeros(DIM) if method.needs_train_mean else None
    method.fit(TrainStatistics(embedding_dim=DIM, mean_embedding=mean))
    method.to(META)

    def prepared(*shape):
        count = torch.Size(shape).numel()
        features = torch.empty(count, T, DIM, device=META)
        videos = torch.empty(count, dtype=torch.int64, device=META)
        found = method.prepare(Clips(features=features, videos=videos))
        return {key: tensor.view(*shape, *tensor.shape[1:]) for key, tensor in found.items()}

    scores = method.score(prepared(EPISODES, WAY, shot), prepared(EPISODES, QUERIES))
    assert (scores.device, scores.shape) == (META, (EPISODES, QUERIES, WAY))
    if method.trainable:
        scores.sum().backward()
        assert set(gradient_devices(method).values()) == {META}
