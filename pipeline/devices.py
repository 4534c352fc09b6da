"""Which torch device a name stands for on this machine."""

import re

from pipeline.errors import ConfigError

DEVICES = ("auto", "cpu", "cuda", "cuda:N")


def check_device_name(name: str) -> None:
    """Refuse what names no device on any machine.

    Args:
        name: auto, cpu, cuda or cuda:N.

    Raises:
        ConfigError: it is none of these.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        known = ", ".join(DEVICES)
        raise ConfigError(f"unknown device {name!r}; known: {known}; pass one of these")


def resolve_device(name: str, worker_number: int = 0) -> str:
    """Device that a setting names here; workers take turns over the GPUs.

    Args:
        name: auto, cpu, cuda or cuda:N.
        worker_number: of the worker that asks; decides the GPU where ``name`` does not.

    Returns:
        cpu or cuda:N.

    Raises:
        ConfigError: there is no such device.
    """
    import torch

    check_device_name(name)
    num_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not num_gpus):
        return "cpu"
    if name in ("auto", "cuda") and num_gpus:
        return f"cuda:{worker_number % num_gpus}"
    numbered = re.fullmatch(r"cuda:(\d+)", name)
    if numbered and int(numbered[1]) < num_gpus:
        return name
    raise ConfigError(
        f"device {name!r} is not on this machine, which has {num_gpus} GPUs; needed: auto, cpu, "
        "cuda or cuda:N; pass --device auto"
    )
