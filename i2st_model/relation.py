"""Attention between the clips of an episode: the switch that gives up describing a video once.

Shape letters: E episodes, N way, K shot, T frames, M global tokens, D features.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from i2st_model.config import NetworkConfig
from i2st_model.layers import Attention


class InterRelation(nn.Module):
    """Every query's episode, the query and all support clips, related by one attention layer.

    HyRSM's inter-relation (Wang et al. 2022, arXiv:2204.13423): mean-pooled clips attend to each
    other, and what each reads is concatenated to all its frames and mapped back, by ``[I, 0]`` to
    begin with. The support then depends on the query, so descriptors stored per video are no
    longer final, and matching does this once per query. Paper: our choice, off by default: nothing
    that could be read mentions it.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim)
        self.attention = Attention(config.dim, config.heads)
        self.back = nn.Linear(2 * config.dim, config.dim)
        with torch.no_grad():
            identity = torch.eye(config.dim)
            self.back.weight.copy_(torch.cat([identity, torch.zeros_like(identity)], 1))
            nn.init.zeros_(self.back.bias)

    def forward(
        self, query: Mapping[str, Tensor], support: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Condition descriptors on the episode.

        Args:
            query: descriptors with leading axes (E, 1); ``local`` decides the relation.
            support: descriptors with leading axes (E, N, K).

        Returns:
            Both, as they were shaped.

        Raises:
            ValueError: there is more than one query per episode.
        """
        E, Q = query["local"].shape[:2]
        if Q != 1:
            raise ValueError(f"an episode has {Q} queries; relate one at a time")
        N, K = support["local"].shape[1:3]
        others = support["local"].mean(dim=3).flatten(1, 2)
        clips = self.norm(torch.cat([query["local"].mean(dim=2), others], dim=1))
        read = self.attention(clips, clips)
        read_query, read_support = read[:, :1], read[:, 1:].view(E, N, K, -1)
        return (
            {name: self._join(value, read_query) for name, value in query.items()},
            {name: self._join(value, read_support) for name, value in support.items()},
        )

    def _join(self, descriptors: Tensor, read: Tensor) -> Tensor:
        wide = read.unsqueeze(-2).expand(descriptors.shape)
        return self.back(torch.cat([descriptors, wide], dim=-1))
