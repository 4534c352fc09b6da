"""An image encoder that trains: uint8 views -> tokens and embeddings with gradients.

Shape letters: n frames, S side of the view in pixels, L grid cells, C token channels, E embedding
channels.
"""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from i2st_model.end_to_end.adapters import add_adapters, draw_adapters
from i2st_model.end_to_end.encoder_config import EncoderConfig
from i2st_model.end_to_end.parameters import open_all, open_last_blocks
from pipeline.encoders import FrameEncoder, get_encoder
from pipeline.encoders.frozen import FrozenEncoder
from pipeline.errors import BackendError, ConfigError


def _frozen(config: EncoderConfig, device: torch.device) -> FrameEncoder:
    """Build the encoder; what is wrong with it is said in the words of training."""
    try:
        return get_encoder(
            config.name,
            device=device,
            grid=config.grid,
            weights=None if config.weights is None else Path(config.weights),
        )
    except (BackendError, ConfigError) as error:
        # It was written for extraction: its hints are flags that training does not have.
        said = re.sub(", and --segmenter .*", "", str(error))
        said = re.sub("--(encoder|weights|grid) ", _as_setting, said)
        raise type(error)(said) from error


def _as_setting(flag: re.Match[str]) -> str:
    return f"--set encoder.{'name' if flag[1] == 'encoder' else flag[1]}="


class TrainableEncoder(nn.Module):
    """A built-in encoder some of whose weights train; the module's own weights are those alone.

    On a GPU it runs under bfloat16 autocast, as in extraction, and its weights stay float32.

    Args:
        config: which encoder, and what of it.
        device: where it runs.

    Raises:
        BackendError: the encoder, its package or its weights are absent.
        ConfigError: it cannot be trained in this way.
    """

    def __init__(self, config: EncoderConfig, device: torch.device) -> None:
        super().__init__()
        self.config = config
        frozen = _frozen(config, device)
        if not isinstance(frozen, FrozenEncoder) or frozen.network is None:
            raise ConfigError(
                f"encoder {config.name} shows no network that could be trained; timm:NAME, "
                "open_clip:MODEL/TAG or efficientnet-lite0 was needed; pass one"
            )
        self.frozen = frozen
        # Held in a tuple, so that states and checkpoints do not hold what never changes.
        self._network = (frozen.network,)
        self._open()
        frozen.network.eval()
        frozen.to(device)
        self.trained = nn.ParameterDict(
            {
                name.replace(".", "/"): parameter
                for name, parameter in frozen.network.named_parameters()
                if parameter.requires_grad
            }
        )
        self._initial = [value.detach().cpu().clone() for value in self.trained.values()]

    @torch.no_grad()
    def reset(self, seed: int) -> None:
        """Put the initial weights back, so that no run begins where another ended.

        Args:
            seed: of adapters, which start at random.
        """
        for parameter, initial in zip(self.trained.values(), self._initial, strict=True):
            parameter.copy_(initial)
        if self.config.trained == "lora":
            draw_adapters(self.network, seed)

    @property
    def network(self) -> nn.Module:
        """All layers, in test mode."""
        return self._network[0]

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that decide the features before the first step, and what of it trains.

        The precision is left out: what was trained on a GPU may be tested on a CPU.
        """
        values = self.frozen.fingerprint()
        del values["precision"]
        return {**values, "trained": self.config.trained}

    def forward(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Encode frames, a fixed number at a time.

        Args:
            views: (n, S, S, 3) uint8. RGB.

        Returns:
            Tokens (n, L, C) and embeddings (n, E), float32 on the device.
        """
        parts = [self._some(part) for part in views.split(self.config.frames_at_a_time)]
        return torch.cat([tokens for tokens, _ in parts]), torch.cat(
            [pooled for _, pooled in parts]
        )

    def _open(self) -> None:
        config, network = self.config, self.network
        if config.trained == "full":
            open_all(network)
        elif config.trained == "last_blocks":
            open_last_blocks(network, config.blocks, name=config.name)
        else:
            add_adapters(network, config.rank, run=self._run_blank, name=config.name)

    @torch.no_grad()
    def _run_blank(self) -> None:
        side = self.frozen.image_size
        self.frozen.features(torch.zeros(1, side, side, 3, dtype=torch.uint8))

    def _some(self, views: Tensor) -> tuple[Tensor, Tensor]:
        if not (self.config.checkpoint_gradients and torch.is_grad_enabled()):
            return self.frozen.features(views)
        result: tuple[Tensor, Tensor] = checkpoint(
            self.frozen.features, views, use_reentrant=False, preserve_rng_state=False
        )
        return result
