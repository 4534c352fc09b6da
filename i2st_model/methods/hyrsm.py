"""HyRSM: frames related within a video, videos related within an episode, then set matching.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, S support clips or prototypes of
an episode, T frames, D embedding channels.
"""

import math
from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn

from i2st_model.layers import Attention, SinePositions
from i2st_model.methods.centred import CentredMethod
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.methods.frame_matching import Shots
from i2st_model.methods.hyrsm_relation import EpisodeRelation, related_cosines
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
    learning_rate = 1e-5  # measured on JHMDB-21: 1e-4 loses 8 points on new classes

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
        self.positions = SinePositions(dim)
        self.norm_within = nn.LayerNorm(dim)
        self.within = Attention(dim, self.heads, zero_output=not self.released)
        self.between = EpisodeRelation(dim, self.heads, self.dropout.p)
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
            ``frames`` (B, T, D), mapped by their half of the joint map, and what `EpisodeRelation`
            relates, (B, D) each.
        """
        frames_BTD = self._related(self.centred(clips.features))
        related = self.between.prepare(frames_BTD.mean(dim=1))
        return {"frames": self.join_frames(frames_BTD), **related}

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score what `prepare` made, (E, N, K, ...) and (E, Q, ...): (E, Q, N) float."""
        N, K = support["mean"].shape[1:3]
        if self.shots == "before_matching":
            classes = {name: value.mean(dim=2) for name, value in support.items()}
        else:
            classes = {name: value.flatten(1, 2) for name, value in support.items()}
        of_support, of_query = (self._shift(read) for read in self.between(classes, query))
        cosines = related_cosines(query["frames"], of_query, classes["frames"], of_support)
        nearest = cosines.amax(dim=-1).mean(dim=-1) + cosines.amax(dim=-2).mean(dim=-1)
        logits_EQS = self.logit_scale * (nearest - 2)
        if self.shots == "before_matching":
            return logits_EQS
        return logits_EQS.unflatten(2, (N, K)).mean(dim=3)

    def _related(self, frames: Tensor) -> Tensor:
        T, D = frames.shape[1:]
        positions = self.positions(T).to(frames)
        if self.released:
            frames = self.dropout(frames * math.sqrt(D / 10) + positions)
            normed = self.norm_within(frames)
        else:
            normed = self.norm_within(frames) + positions
        related = frames + self.dropout(self.within(normed, normed))
        return related.relu() if self.released else related

    def _shift(self, read: Tensor) -> Tensor:
        return self.join_clip(read.relu() if self.released else read)
