"""Low-rank adapters: few new weights beside a network's frozen ones.

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022, arXiv:2106.09685, by the
package peft: a layer becomes ``W x + 2 B A x`` with B = 0 at first, so that nothing changes before
the first step.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import nn

from pipeline.errors import BackendError, ConfigError
from pipeline.torchvision_shim import ensure_torchvision

SCALE = 2
"""Of the adapter's output, alpha / rank. Paper: our choice, the usual one."""


def add_adapters(network: nn.Module, rank: int, *, run: Callable[[], object], name: str) -> None:
    """Add adapters to a network's linear layers and plain convolutions, and let only them train.

    Left alone: layers that a call does not reach, such as a classifier; grouped convolutions, whose
    groups are as thin as an adapter; layers with a forward of their own; and
    ``nn.MultiheadAttention``, whose weights peft changes and restores in every call, so that they
    drift by rounding (open_clip's towers are adapted in their MLPs).

    Args:
        network: is changed; the names of its weights change, too.
        rank: of A and B.
        run: calls the network once.
        name: of the encoder, for messages.

    Raises:
        BackendError: peft is absent.
        ConfigError: the network has no layer that can be adapted.
    """
    targets = adaptable_layers(network, run)
    if not targets:
        raise ConfigError(
            f"encoder.trained=lora, {name} has no linear layer and no plain convolution; one was "
            "needed; pass encoder.trained=last_blocks"
        )
    peft = _peft()
    network.requires_grad_(False)
    settings = peft.LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=targets)
    peft.inject_adapter_in_model(settings, network)


@torch.no_grad()
def draw_adapters(network: nn.Module, seed: int) -> None:
    """Draw the adapters of `add_adapters` anew: A as peft does, B = 0.

    Args:
        network: has adapters; they are changed in place.
        seed: decides A, on any device.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if ".lora_B." in name:
            parameter.zero_()
        elif ".lora_A." in name:
            drawn = torch.empty(parameter.shape)
            parameter.copy_(nn.init.kaiming_uniform_(drawn, a=5**0.5, generator=generator))


def adaptable_layers(network: nn.Module, run: Callable[[], object]) -> list[str]:
    """Names of the layers that `add_adapters` adapts."""
    modules = dict(network.named_modules())
    packed = tuple(f"{name}." for name, module in modules.items() if _is_attention(module))
    candidates = [
        name
        for name, module in modules.items()
        if _adaptable(module) and not (packed and name.startswith(packed))
    ]
    reached: set[str] = set()
    hooks = [
        modules[name].register_forward_hook(lambda *_, name=name: reached.add(name))
        for name in candidates
    ]
    run()
    for hook in hooks:
        hook.remove()
    return [name for name in candidates if name in reached]


def _is_attention(module: nn.Module) -> bool:
    return isinstance(module, nn.MultiheadAttention)


def _adaptable(module: nn.Module) -> bool:
    return type(module) is nn.Linear or (type(module) is nn.Conv2d and module.groups == 1)


def _peft() -> Any:
    # peft imports transformers, and that torchvision.
    ensure_torchvision()
    try:
        return import_module("peft")
    except ImportError as error:
        raise BackendError(
            "the package peft is absent; needed by encoder.trained=lora; install it with "
            "`pip install 'i2st[peft]'`"
        ) from error
