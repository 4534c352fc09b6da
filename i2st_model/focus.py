"""Focused tokens: descriptors of parts of a clip, each looking at some of its frames.

Shape letters: B clips, T frames, F focused tokens, D features.
"""

import math

import torch
from torch import Tensor, nn

from i2st_model.config import NetworkConfig


class FocusedTokens(nn.Module):
    """Local descriptors averaged over F windows of time, of learned place, width and content.

    The second half of Huang et al.'s compound prototypes (CPM, ECCV 2022, arXiv:2207.05515): each
    token attends to some timestamps, and tokens of two clips are matched by assignment. The window,
    a Gaussian over relative time, and learned content, zero to begin with, are our choice: at
    step 0 token f is the mean around the f-th of F equal segments, so that tokens differ from the
    start. Paper: inferred from CPM.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        number = config.focused_tokens
        # No bias: the same for all frames, the softmax over them would cancel it.
        self.norm = nn.LayerNorm(config.dim, bias=False)
        self.queries = nn.Parameter(torch.zeros(number, config.dim))
        self.key = nn.Linear(config.dim, config.dim, bias=False)
        self.centres = nn.Parameter((torch.arange(number) + 0.5) / number)
        # One segment is then two standard deviations wide.
        self.log_widths = nn.Parameter(torch.full((number,), -math.log(2 * number)))

    def forward(self, local: Tensor) -> Tensor:
        """Map (B, T, D) local descriptors to (B, F, D)."""
        T, D = local.shape[1:]
        times_T = (torch.arange(T, device=local.device, dtype=local.dtype) + 0.5) / T
        offset_FT = (times_T - self.centres.unsqueeze(1)) / self.log_widths.exp().unsqueeze(1)
        content_BFT = torch.matmul(self.queries * D**-0.5, self.key(self.norm(local)).mT)
        return torch.matmul((content_BFT - 0.5 * offset_FT.square()).softmax(dim=-1), local)
