"""HyRSM: frames related within a video, videos related within an episode, then set matching.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, S support clips or prototypes of
an episode, T frames, D embedding channels, H heads, A channels of a head.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from i2st_model.layers import Attention, sine_positions
from i2st_model.matching import COSINE_EPSILON
from i2st_model.methods.centred import CentredMethod
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.methods.frame_matching import Shots
from pipeline.errors import ConfigError

Start = Literal["bi_mhm", "released"]


class HyRSM(CentredMethod):
    """Hybrid relation guided set matching, trained on cached frame embeddings.

    Wang et al., CVPR 2022, arXiv:2204.13423. Intra-relation: frames of a video attend to each
    other (`prepare`, once per video). Inter-relation, once per query: the mean frames of support
    and query attend to each other, and what a clip reads is concatenated to all its frames and
    mapped back to D channels by one linear map, then Bi-MHM. The encoder is frozen, and there is no
    auxiliary loss over base classes.

    The released code scales frames by sqrt(D / 10), adds positions, and puts ReLU after both
    relations; ``start="released"`` does so. ``start="bi_mhm"`` leaves out scale and ReLU, adds the
    positions inside the attention alone, and begins with an intra-relation of zero and the map
    ``[I, 0]``, so that step 0 is Bi-MHM on the same frames: our choice, for frozen features.

    Args:
        centre: subtract the mean training frame.
        shots: ``before_matching`` relates class prototypes (the released 5-shot head),
            ``after_matching`` relates single shots and averages distances (the 1-shot head).
        heads: of both attentions.
        dropout: of what the two attentions read.
        logit_scale: logits are minus this times Bi-MHM, which is a mean over frames; the released
            code sums over 8.
        start: see above.
    """

    name = "hyrsm"
    trainable = True

    def __init__(
        self,
        *,
        centre: bool = True,
        shots: Shots = "before_matching",
        heads: int = 8,
        dropout: float = 0.1,
        logit_scale: float = 8.0,
        start: Start = "bi_mhm",
    ) -> None:
        super().__init__(centre=centre)
        self.shots, self.heads, self.logit_scale = shots, heads, logit_scale
        self.averages_shots = shots == "before_matching"
        self.released = start == "released"
        self.dropout = nn.Dropout(dropout)

    def fit(self, train: TrainStatistics) -> None:
        """Keep the mean training frame, and make the layers from torch's RNG.

        Args:
            train: sizes and means.

        Raises:
            ConfigError: the embedding does not divide into the heads.
        """
        super().fit(train)
        dim = train.embedding_dim
        if dim % self.heads:
            raise ConfigError(
                f"heads={self.heads} and embeddings of {dim} channels; a divisor of {dim} is "
                "needed; pass another number of heads"
            )
        self.norm_within = nn.LayerNorm(dim)
        self.within = Attention(dim, self.heads, zero_output=not self.released)
        self.between = Attention(dim, self.heads)
        self.norm_between = nn.LayerNorm(dim)
        self.join_frames = nn.Linear(dim, dim)
        self.join_clip = nn.Linear(dim, dim, bias=False)
        if not self.released:
            nn.init.eye_(self.join_frames.weight)
            nn.init.zeros_(self.join_frames.bias)
            nn.init.zeros_(self.join_clip.weight)

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Relate the frames of each clip.

        Args:
            clips: (B, T, D) frame embeddings.

        Returns:
            ``frames`` (B, T, D), mapped by their half of the joint map; ``mean`` (B, D), the mean
            related frame, and its ``asked``, ``key`` and ``value`` (B, D) for the inter-relation.
        """
        frames_BTD = self._related(self.centred(clips.features))
        mean_BD = frames_BTD.mean(dim=1)
        return {
            "frames": self.join_frames(frames_BTD),
            "mean": mean_BD,
            "asked": self.between.query(mean_BD),
            "key": self.between.key(mean_BD),
            "value": self.between.value(mean_BD),
        }

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score what `prepare` made, (E, N, K, ...) and (E, Q, ...): (E, Q, N) float.

        Each query sees the support in its own way, yet its support frames are never formed: a
        product of related frames is a sum of products of `prepare`'s frames and of what clips read.
        """
        N, K = support["mean"].shape[1:3]
        if self.shots == "before_matching":
            classes = {name: value.mean(dim=2) for name, value in support.items()}
        else:
            classes = {name: value.flatten(1, 2) for name, value in support.items()}
        read_support, read_query = self._read(classes, query)
        similarity = _similarity(query["frames"], read_query, classes["frames"], read_support)
        nearest = similarity.amax(dim=-1).mean(dim=-1) + similarity.amax(dim=-2).mean(dim=-1)
        logits_EQS = self.logit_scale * (nearest - 2)
        if self.shots == "before_matching":
            return logits_EQS
        return logits_EQS.unflatten(2, (N, K)).mean(dim=3)

    def _related(self, frames: Tensor) -> Tensor:
        T, D = frames.shape[1:]
        positions = sine_positions(T, D).to(frames)
        if self.released:
            frames = self.dropout(frames * math.sqrt(D / 10) + positions)
            normed = self.norm_within(frames)
        else:
            normed = self.norm_within(frames) + positions
        related = frames + self.dropout(self.within(normed, normed))
        return related.relu() if self.released else related

    def _read(
        self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What clips take from each other, mapped: (E, Q, S, D) of support, (E, Q, D) of query."""
        S = support["mean"].shape[1]
        asked_s, key_s, value_s = (self._heads(support[name]) for name in ("asked", "key", "value"))
        asked_q, key_q, value_q = (self._heads(query[name]) for name in ("asked", "key", "value"))
        scale = asked_s.shape[-1] ** -0.5
        # Scores of support to support are the same for all queries of an episode.
        among = torch.einsum("eshc,ezhc->ehsz", asked_s, key_s).unsqueeze(1)
        to_query = torch.einsum("eshc,eqhc->eqhs", asked_s, key_q).unsqueeze(-1)
        own = torch.einsum("eqhc,eqhc->eqh", asked_q, key_q)[..., None, None]
        to_support = torch.einsum("eqhc,eshc->eqhs", asked_q, key_s).unsqueeze(-2)
        above = torch.cat([among.expand(-1, len(own[0]), -1, -1, -1), to_query], dim=-1)
        scores_EQHYY = torch.cat([above, torch.cat([to_support, own], dim=-1)], dim=-2)
        weights = (scores_EQHYY * scale).softmax(dim=-1)
        taken = torch.einsum("eqhys,eshc->eqyhc", weights[..., :S], value_s)
        taken = taken + weights[..., S].transpose(2, 3)[..., None] * value_q.unsqueeze(2)
        means = torch.cat(
            [
                support["mean"].unsqueeze(1).expand(-1, len(own[0]), -1, -1),
                query["mean"][:, :, None],
            ],
            dim=2,
        )
        read = self.norm_between(means + self.dropout(self.between.output(taken.flatten(3))))
        mapped = self.join_clip(read.relu() if self.released else read)
        return mapped[:, :, :S], mapped[:, :, S]

    def _heads(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(-1, (self.heads, -1))


def _similarity(query: Tensor, read_query: Tensor, support: Tensor, read_support: Tensor) -> Tensor:
    """Cosines of ``query + read_query`` and ``support + read_support``, frame by frame.

    Args:
        query: (E, Q, T, D) float.
        read_query: (E, Q, D) float. Added to all frames of the query.
        support: (E, S, T, D) float.
        read_support: (E, Q, S, D) float. Added to all frames of the support clip.

    Returns:
        (E, Q, S, T, T) float.
    """
    frames = torch.einsum("eqtd,esud->eqstu", query, support)
    of_query = torch.einsum("eqtd,eqsd->eqst", query, read_support)
    of_support = torch.einsum("eqd,esud->eqsu", read_query, support)
    reads = torch.einsum("eqd,eqsd->eqs", read_query, read_support)
    products = frames + of_query[..., None] + of_support[..., None, :] + reads[..., None, None]
    squares_EQT = (query + read_query.unsqueeze(2)).square().sum(-1)
    cross_EQST = torch.einsum("eqsd,estd->eqst", read_support, support)
    squares_EST, squares_EQS = support.square().sum(-1), read_support.square().sum(-1)
    squares_EQST = squares_EST.unsqueeze(1) + 2 * cross_EQST + squares_EQS.unsqueeze(-1)
    least = COSINE_EPSILON**2
    lengths_EQT = squares_EQT.clamp_min(least).sqrt()
    lengths_EQST = squares_EQST.clamp_min(least).sqrt()
    return products / lengths_EQT[:, :, None, :, None] / lengths_EQST[..., None, :]
