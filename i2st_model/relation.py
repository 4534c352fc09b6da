"""Attention between the clips of an episode: the switch that gives up describing a video once.

Shape letters: E episodes, Q query clips, N way, K shot, T frames, M global tokens, D features,
S = N K support clips.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from i2st_model.config import NetworkConfig
from i2st_model.layers import Attention


class InterRelation(nn.Module):
    """Every query's episode, the query and all support clips, related by one attention layer.

    HyRSM's inter-relation (Wang et al. 2022, arXiv:2204.13423): mean-pooled clips attend to each
    other, and what each reads is concatenated to all its frames and mapped back, by ``[I, 0]`` to
    begin with. The support then depends on the query, so descriptors stored per video are no
    longer final. Paper: our choice, off by default: nothing that could be read mentions it.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        # The map back is affine, so a mean over shots may go before it: K times less to map.
        self.mean_shots = config.prototypes == "before_matching"
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
        """Condition descriptors on the episode, for each query by itself.

        Args:
            query: descriptors with leading axes (E, Q); ``local`` decides the relation.
            support: descriptors with leading axes (E, N, K).

        Returns:
            Queries as they were shaped, and the support as each query sees it, with leading axes
            (E, Q, N, K); K = 1, the mean shot, where shots are averaged before matching.
        """
        read_EQD, read_EQNKD = self._relate(query["local"], support["local"])
        if self.mean_shots:
            support = {name: value.mean(dim=2, keepdim=True) for name, value in support.items()}
            read_EQNKD = read_EQNKD.mean(dim=3, keepdim=True)
        return (
            {name: self._join(value, read_EQD) for name, value in query.items()},
            {name: self._join(value.unsqueeze(1), read_EQNKD) for name, value in support.items()},
        )

    def _relate(self, query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
        E, Q = query.shape[:2]
        query_EQ1D = self.norm(query.mean(dim=2)).unsqueeze(2)
        others_ESD = self.norm(support.mean(dim=3)).flatten(1, 2)
        others_EQSD = others_ESD.unsqueeze(1).expand(-1, Q, -1, -1)
        clips = torch.cat([query_EQ1D, others_EQSD], dim=2).flatten(0, 1)
        read = self.attention(clips, clips).unflatten(0, (E, Q))
        return read[:, :, 0], read[:, :, 1:].unflatten(2, support.shape[1:3])

    def _join(self, descriptors: Tensor, read: Tensor) -> Tensor:
        # W [x; r] = W1 x + W2 r: what does not depend on the query is mapped once for all queries.
        own, other = self.back.weight.chunk(2, dim=1)
        mapped = functional.linear(descriptors, own, self.back.bias)
        return mapped + functional.linear(read, other).unsqueeze(-2)
