"""HyRSM's relation of the clips of an episode, and matching of frames that it has changed.

Shape letters: B clips, E episodes, Q query clips, S support clips or prototypes of an episode, T
frames, D embedding channels, H heads, Y = S + 1 clips that one query is related with.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from i2st_model.layers import Attention
from i2st_model.matching import COSINE_EPSILON


class EpisodeRelation(nn.Module):
    """What clips read from each other's means, anew for every query.

    Inter-relation of Wang et al., CVPR 2022, arXiv:2204.13423: the means of one query and of all
    support clips attend to each other, with a residual and LayerNorm as in the released code.
    Queries, keys and values of the attention are linear in the means, so they are made once per
    video, and what support clips are to each other once per episode.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention = Attention(dim, heads)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def prepare(self, means: Tensor) -> dict[str, Tensor]:
        """Make of (B, D) means what `forward` relates; averages of it are those of averages."""
        return {
            "mean": means,
            "asked": self.attention.query(means),
            "key": self.attention.key(means),
            "value": self.attention.value(means),
        }

    def forward(
        self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Relate each query with the support of its episode.

        Args:
            support: of `prepare`, (E, S, D) each.
            query: the same, (E, Q, D) each.

        Returns:
            What support clips read beside each query, (E, Q, S, D) float, and queries, (E, Q, D).
        """
        Q, S = query["mean"].shape[1], support["mean"].shape[1]
        weights_EQHYY = self._scores(support, query).softmax(dim=-1)
        values_s, values_q = self._heads(support["value"]), self._heads(query["value"])
        taken = torch.einsum("eqhys,eshc->eqyhc", weights_EQHYY[..., :S], values_s)
        own_EQYH1 = weights_EQHYY[..., S].transpose(2, 3).unsqueeze(-1)
        taken = taken + own_EQYH1 * values_q.unsqueeze(2)
        means_EQSD = support["mean"].unsqueeze(1).expand(-1, Q, -1, -1)
        means_EQYD = torch.cat([means_EQSD, query["mean"].unsqueeze(2)], dim=2)
        read = self.norm(means_EQYD + self.dropout(self.attention.output(taken.flatten(3))))
        return read[:, :, :S], read[:, :, S]

    def _scores(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """(E, Q, H, Y, Y): who asks before who is asked; each query comes last."""
        asked_s, key_s = self._heads(support["asked"]), self._heads(support["key"])
        asked_q, key_q = self._heads(query["asked"]), self._heads(query["key"])
        among = torch.einsum("eshc,ezhc->ehsz", asked_s, key_s).unsqueeze(1)
        to_query = torch.einsum("eshc,eqhc->eqhs", asked_s, key_q).unsqueeze(-1)
        to_support = torch.einsum("eqhc,eshc->eqhs", asked_q, key_s).unsqueeze(-2)
        to_itself = (asked_q * key_q).sum(dim=-1)[..., None, None]
        above = torch.cat([among.expand(-1, key_q.shape[1], -1, -1, -1), to_query], dim=-1)
        below = torch.cat([to_support, to_itself], dim=-1)
        return torch.cat([above, below], dim=-2) * key_q.shape[-1] ** -0.5

    def _heads(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(-1, (self.heads, -1))


def related_cosines(
    query: Tensor, query_shift: Tensor, support: Tensor, support_shift: Tensor
) -> Tensor:
    """Cosines of ``query + query_shift`` and ``support + support_shift``, frame by frame.

    Support clips are shifted in another way for each query, yet no shifted clip is formed: a
    product of sums is a sum of products, and only the shortest of them know clip and query.

    Args:
        query: (E, Q, T, D) float.
        query_shift: (E, Q, D) float. Added to all frames of the query.
        support: (E, S, T, D) float.
        support_shift: (E, Q, S, D) float. Added to all frames of the support clip.

    Returns:
        (E, Q, S, T, T) float in [-1, 1].
    """
    frames = torch.einsum("eqtd,esud->eqstu", query, support)
    of_query = torch.einsum("eqtd,eqsd->eqst", query, support_shift)
    of_support = torch.einsum("eqd,esud->eqsu", query_shift, support)
    of_shifts = torch.einsum("eqd,eqsd->eqs", query_shift, support_shift)
    products = frames + of_query[..., None] + of_support[..., None, :] + of_shifts[..., None, None]
    squares_EQT = (query + query_shift.unsqueeze(2)).square().sum(-1)
    cross_EQST = torch.einsum("eqsd,estd->eqst", support_shift, support)
    squares_EST, squares_EQS = support.square().sum(-1), support_shift.square().sum(-1)
    squares_EQST = squares_EST.unsqueeze(1) + 2 * cross_EQST + squares_EQS.unsqueeze(-1)
    lengths_EQT = squares_EQT.clamp_min(COSINE_EPSILON**2).sqrt()
    lengths_EQST = squares_EQST.clamp_min(COSINE_EPSILON**2).sqrt()
    return products / lengths_EQT[:, :, None, :, None] / lengths_EQST[..., None, :]
