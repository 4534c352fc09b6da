"""Action-related instance perception: a frame's tokens -> instance embeddings and their mask.

Shape letters: B frames, I instances, n instance queries, L = g x g grid cells, D features,
S side of the mask in cells.

The paper's perception is an encoder and a decoder that recovers the instance mask, in training only
(both stated to us, their forms not). Cached tokens have one resolution, so the decoder works from
the token grid alone, without the finer levels of a feature pyramid.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from i2st_model.config import NetworkConfig
from i2st_model.instance_encoder import InstanceEncoder
from i2st_model.layers import grid_positions
from i2st_model.mask_decoder import AutoDecoder, MaskDecoder


class Perception(NamedTuple):
    """What is perceived in B frames."""

    instances: Tensor
    """(B, I, D) float. Instance embeddings."""
    mask_logits: Tensor | None
    """(B, S, S) float. Union of the instance masks; None where no mask was asked for or needed."""


class QueryPerception(nn.Module):
    """``queries``: the encoder's outputs are the instance embeddings; the decoder only trains them.

    Paper: inferred from MaskFormer. Measured: the pixel map alone can decode the mask, and the mask
    loss then changes nothing.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.encoder = InstanceEncoder(config)
        self.decoder = MaskDecoder(config)
        self.register_buffer("positions", grid_positions(config), persistent=False)
        self.positions: Tensor

    def forward(self, tokens: Tensor, *, with_masks: bool) -> Perception:
        """Perceive (B, L, D) tokens; ``with_masks`` runs the decoder."""
        memory = tokens + self.positions
        instances = self.encoder(memory)
        masks = self.decoder.union(instances, memory) if with_masks else None
        return Perception(instances, masks)


class MaskedPoolPerception(nn.Module):
    """``masked_pool``: the predicted mask weights the tokens into the instance embedding.

    The weights are detached: the mask learns from its supervision alone, and the embedding from
    the mask, so the mask loss cannot leave the embedding untouched. Its price is that the
    decoder, light as it is, also runs at test. Paper: our choice, against "decoder in training
    only". Measured: about +1 point over ``queries`` on JHMDB-21.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = InstanceEncoder(config)
        self.decoder = MaskDecoder(config)
        self.register_buffer("positions", grid_positions(config), persistent=False)
        self.positions: Tensor

    def forward(self, tokens: Tensor, *, with_masks: bool) -> Perception:
        """Perceive (B, L, D) tokens; the mask is always made, and returned ``with_masks``."""
        memory = tokens + self.positions
        queries = self.encoder(memory)
        if self.config.pooled_masks == "union":
            merged = self.decoder.union(queries, memory)
            chosen = merged.unsqueeze(1)
        else:
            chosen = self.decoder(queries, memory)
            merged = union(chosen)
        weights = functional.avg_pool2d(chosen.detach().sigmoid(), 4).flatten(2)
        instances = pool_tokens(tokens, weights, self.config.mask_floor)
        return Perception(instances, merged if with_masks else None)


class MaskedAttentionPerception(nn.Module):
    """``masked_attention``: the attention map of each query is its mask, and is supervised itself.

    Attention weights are sigmoids of the mask logits over the grid, so that map and mask are one
    thing; gradients pass both ways. There is no decoder, in training or at test. Paper: our choice,
    inferred from Mask2Former's masked attention (arXiv:2112.01527), to keep the test-time cost that
    the paper's training-only decoder has.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = InstanceEncoder(config)
        self.query = nn.Linear(config.dim, config.dim)
        self.key = nn.Linear(config.dim, config.dim, bias=False)
        self.bias = nn.Parameter(torch.tensor(-1.0 - math.log(config.num_instances)))
        self.register_buffer("positions", grid_positions(config), persistent=False)
        self.positions: Tensor

    def forward(self, tokens: Tensor, *, with_masks: bool) -> Perception:
        """Perceive (B, L, D) tokens; masks have the side of the grid."""
        memory = tokens + self.positions
        lifted = self.query(self.encoder(memory)) @ self.key.weight
        scale = tokens.shape[-1] ** -0.5
        logits_BnL = torch.matmul(lifted * scale, memory.transpose(1, 2)) + self.bias
        merged = logits_BnL.logsumexp(dim=1)
        chosen = merged.unsqueeze(1) if self.config.pooled_masks == "union" else logits_BnL
        instances = pool_tokens(tokens, chosen.sigmoid(), self.config.mask_floor)
        side = self.config.side
        return Perception(instances, merged.unflatten(1, (side, side)) if with_masks else None)


class AutoDecoderPerception(nn.Module):
    """``autodecoder``: one convolutional instance embedding per frame, decoded into the mask.

    Paper: inferred from MoLo's motion autodecoder, whose decoder also runs in training only.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.side = config.side
        self.reduce = nn.Conv2d(config.dim, config.mask_width, 3, padding=1)
        self.expand = nn.Conv2d(config.mask_width, config.dim, 1)
        self.decoder = AutoDecoder(config)

    def forward(self, tokens: Tensor, *, with_masks: bool) -> Perception:
        """Perceive (B, L, D) tokens; ``with_masks`` runs the decoder."""
        image = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))
        hidden = self.reduce(image)
        instances = functional.relu(self.expand(hidden)).mean(dim=(2, 3)).unsqueeze(1)
        return Perception(instances, self.decoder(hidden) if with_masks else None)


class NoPerception(nn.Module):
    """``none``: no instances, the control without the paper's first component."""

    def forward(self, tokens: Tensor, *, with_masks: bool) -> Perception:
        """Return no instance and no mask for (B, L, D) tokens, whatever ``with_masks`` says."""
        return Perception(tokens[:, :0], None)


PERCEPTIONS: dict[str, type[nn.Module]] = {
    "masked_pool": MaskedPoolPerception,
    "masked_attention": MaskedAttentionPerception,
    "queries": QueryPerception,
    "autodecoder": AutoDecoderPerception,
}


def build_perception(config: NetworkConfig) -> nn.Module:
    """Build the perception that ``config.instances`` names."""
    return NoPerception() if config.instances == "none" else PERCEPTIONS[config.instances](config)


def union(mask_logits: Tensor) -> Tensor:
    """Join (B, n, S, S) instance mask logits into (B, S, S) by logsumexp over instances.

    Text-guided masks carry no instance identity, so no assignment step is needed.
    Paper: our choice.
    """
    return mask_logits.logsumexp(dim=1)


def pool_tokens(tokens: Tensor, weights: Tensor, floor: float) -> Tensor:
    """Average tokens by mask weights.

    Args:
        tokens: (B, L, D) float.
        weights: (B, I, L) float in [0, 1]. Share of each cell under each mask.
        floor: weight of a cell outside the mask, so that an empty mask gives the plain mean.

    Returns:
        (B, I, D) float. Equal weights give the mean over the grid.
    """
    raised = floor + (1 - floor) * weights
    return torch.bmm(raised / raised.sum(dim=-1, keepdim=True).clamp_min(1e-6), tokens)
