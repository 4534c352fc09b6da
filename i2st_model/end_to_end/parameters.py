"""Which weights of a network train: all, or those of its last blocks.

A block is an item of an outermost ``nn.Sequential`` or ``nn.ModuleList``: a bottleneck of a ResNet
(its stages are four such lists), a transformer layer of a ViT, a stage of timm's EfficientNets.
"""

from torch import nn

from pipeline.errors import ConfigError


def block_names(network: nn.Module) -> list[str]:
    """Names of the network's blocks with weights, in the order of their definition."""
    names: list[str] = []

    def visit(module: nn.Module, prefix: str) -> None:
        for name, child in module.named_children():
            path = f"{prefix}{name}"
            if isinstance(module, nn.Sequential | nn.ModuleList):
                names.append(path)
            else:
                visit(child, f"{path}.")

    visit(network, "")
    return [name for name in names if any(True for _ in network.get_submodule(name).parameters())]


def open_all(network: nn.Module) -> None:
    """Let every weight train."""
    network.requires_grad_(True)


def open_last_blocks(network: nn.Module, count: int, *, name: str) -> None:
    """Let the last blocks train, and what is defined behind them, such as a final norm.

    Weights that a network defines before its blocks, such as position tables and CLIP's projection,
    stay as they are.

    Args:
        network: receives ``requires_grad``.
        count: number of blocks.
        name: of the encoder, for messages.

    Raises:
        ConfigError: the network has fewer blocks.
    """
    blocks = block_names(network)
    if count > len(blocks):
        raise ConfigError(
            f"encoder.blocks={count}, {name} has {len(blocks)} blocks; 1 to {len(blocks)} is "
            "needed; lower it, or pass encoder.trained=full"
        )
    network.requires_grad_(False)
    behind = False
    for path, parameter in network.named_parameters():
        behind = behind or path.startswith(f"{blocks[-count]}.")
        parameter.requires_grad_(behind)
