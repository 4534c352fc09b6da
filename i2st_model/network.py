"""The I2ST network: perception, joint attention, fusion and matching, composed.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, I instances, L grid
cells, S stem outputs of a frame, M global tokens, C token channels, P stem channels, D features.

Clip by clip (`describe`) first, then episode by episode (`logits`). Unless ``cross_video`` says
otherwise the first part knows no episode: a video is described once, and every episode is a gather.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from i2st_model.attention import GlobalFusion, JointAttention, MeanFusion
from i2st_model.config import NetworkConfig
from i2st_model.encoded import Encoded
from i2st_model.focus import FocusedTokens
from i2st_model.layers import ClipDropout
from i2st_model.perception import build_perception
from i2st_model.projection import BaseHead, DescriptorHead, Projection, image_and_grid
from i2st_model.prototypes import class_distances, global_weight
from i2st_model.relation import InterRelation
from i2st_model.stem import Stem, require_stem_tokens


class I2STNetwork(nn.Module):
    """Joint image-instance spatial-temporal attention on cached tokens.

    Qian et al., "Joint image-instance spatial-temporal attention for few-shot action recognition",
    CVIU 2025, arXiv:2503.14430. The two components, the pair of sub-modules and global-local
    matching are stated there; the rest carries its tag where it is made.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        stem: Stem,
        projection: Projection,
        perception: nn.Module,
        attention: JointAttention,
        head: DescriptorHead,
        fusion: GlobalFusion | MeanFusion,
        relation: InterRelation | None,
        base_head: BaseHead | None,
        image_projection: Projection | None = None,
        focus: FocusedTokens | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.stem = stem
        self.channel_dropout = ClipDropout(config.channel_dropout)
        self.projection = projection
        self.perception = perception
        self.attention = attention
        self.head = head
        self.fusion = fusion
        self.relation = relation
        self.base_head = base_head
        self.image_projection = image_projection
        self.focus = focus
        # Without instances and attention nothing looks at single cells, and the mean may go first.
        self.needs_grid = config.instances != "none" or config.spatial_temporal_pairs > 0

    def fit_stem(self, sample: Tensor, embeddings: Tensor | None = None) -> None:
        """Set centre, components and scale from features of the training split.

        Args:
            sample: (..., C) float tokens.
            embeddings: (..., E) float frame embeddings; needed under image_token=embedding.
        """
        self.stem.fit(sample, embeddings)

    def encode(self, stem_tokens: Tensor, *, with_masks: bool | None = None) -> Encoded:
        """Encode clips, each by itself.

        Args:
            stem_tokens: (B, T, S, P) float. Outputs of ``stem``.
            with_masks: whether to return mask logits; None = in training only.

        Returns:
            The clips' descriptors, masks and base-class logits.

        Raises:
            ValueError: the tokens do not have the config's S and P.
        """
        require_stem_tokens(self.config, stem_tokens)
        B, T = stem_tokens.shape[:2]
        wanted = self.training if with_masks is None else with_masks
        tokens = self.channel_dropout(self._reduce(stem_tokens))
        image, grid = image_and_grid(tokens, self.projection, self.image_projection)
        perceived = self.perception(grid.flatten(0, 1), with_masks=wanted)
        frames = torch.cat([image, perceived.instances.unflatten(0, (B, T))], dim=2)
        frames = self.attention(frames, grid)
        local = self.head(frames)
        masks = perceived.mask_logits
        global_ = self.fusion(local, frames)
        return Encoded(
            local=local,
            global_=global_,
            mask_logits=None if masks is None else masks.unflatten(0, (B, T)),
            base_logits=None if self.base_head is None else self.base_head.classify(local, global_),
            focused=None if self.focus is None else self.focus(local),
        )

    def forward(
        self, tokens: Tensor, embedding: Tensor | None = None, *, with_masks: bool | None = None
    ) -> Encoded:
        """Encode clips from cached features; see `encode`.

        Args:
            tokens: (B, T, L, C) float.
            embedding: (B, T, E) float. Frame embeddings; needed under image_token=embedding.
            with_masks: as in `encode`.

        Returns:
            As `encode`.
        """
        return self.encode(self.stem(tokens, embedding), with_masks=with_masks)

    @torch.no_grad()
    def describe(self, tokens: Tensor, embedding: Tensor | None = None) -> dict[str, Tensor]:
        """Describe clips for matching, as at test time, whatever mode the network is in.

        Args:
            tokens: (B, T, L, C) float. Cached tokens.
            embedding: (B, T, E) float. Frame embeddings; needed under image_token=embedding.

        Returns:
            ``local`` (B, T, D), ``global`` (B, M, D) and, where there are any, ``focused`` float,
            of each clip by itself.
        """
        was_training = self.training
        self.eval()
        try:
            return self(tokens, embedding, with_masks=False).descriptors
        finally:
            self.train(was_training)

    def logits(self, query: Mapping[str, Tensor], support: Mapping[str, Tensor]) -> Tensor:
        """Score every query clip of every episode against every class.

        ``-s D`` with ``D = (1 - w) D_local + w D_global``. Paper: global-local prototype matching
        is stated, the terms and their weights are our choice (`NetworkConfig`).

        Args:
            query: descriptors with leading axes (E, Q).
            support: descriptors with leading axes (E, N, K).

        Returns:
            (E, Q, N) float. Softmax over the last axis gives class probabilities.
        """
        weight = global_weight(self.config, training=self.training)
        distance = class_distances(self.config, weight, query, support, self.relation)
        return -self.config.logit_scale * distance

    def fast_parameters(self) -> list[nn.Parameter]:
        """Parameters that train at the higher rate: projection and mask decoder.

        Measured: 1e-3 for these and 1e-4 for the rest; 3e-4 for all loses to the baseline.
        """
        decoder = getattr(self.perception, "decoder", None)
        parts = (self.projection, self.image_projection, decoder)
        return [one for part in parts if part is not None for one in part.parameters()]

    def slow_parameters(self) -> list[nn.Parameter]:
        """All trainable parameters but `fast_parameters`."""
        fast = {id(parameter) for parameter in self.fast_parameters()}
        return [parameter for parameter in self.parameters() if id(parameter) not in fast]

    def _reduce(self, stem_tokens: Tensor) -> Tensor:
        if self.needs_grid:
            return stem_tokens
        if self.image_projection is not None:
            return stem_tokens[:, :, :1]
        return stem_tokens.mean(dim=2, keepdim=True)


def build_network(config: NetworkConfig) -> I2STNetwork:
    """Build the parts that ``config`` names and compose them; weights come from torch's RNG."""
    fusion = GlobalFusion(config) if config.global_fusion == "attention" else MeanFusion(config)
    relation = InterRelation(config) if config.cross_video == "inter_relation" else None
    base_head = BaseHead(config) if config.base_classes else None
    return I2STNetwork(
        config,
        stem=Stem(config),
        projection=Projection(config),
        perception=build_perception(config),
        attention=JointAttention(config),
        head=DescriptorHead(config),
        fusion=fusion,
        relation=relation,
        base_head=base_head,
        # Last, so that the weights of all else are those of a network without these.
        image_projection=Projection(config) if config.image_token == "embedding" else None,
        focus=FocusedTokens(config) if config.focused_tokens else None,
    )
