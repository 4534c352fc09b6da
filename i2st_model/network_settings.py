"""Settings of the I2ST network: each choice that the paper leaves open is one named switch.

The paper (Qian et al., CVIU 2025, arXiv:2503.14430) could be read in abstract and summary only, so
every field says whether its default is stated there, inferred from a related work, or our choice.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from i2st_model.config_checks import check_fields
from pipeline.errors import ConfigError

Instances = Literal["masked_pool", "masked_attention", "queries", "autodecoder", "none"]
PooledMasks = Literal["union", "each"]
AttentionParts = Literal["both", "spatial", "temporal"]
AttentionOrder = Literal["spatial_first", "temporal_first"]
AttentionScope = Literal["joint", "cross"]
BaseLevel = Literal["video", "frame"]
GlobalFusion = Literal["attention", "mean"]
GlobalMatching = Literal["pooled", "otam", "compound"]
GlobalWhen = Literal["always", "training", "test"]
Prototypes = Literal["before_matching", "after_matching"]
CrossVideo = Literal["none", "inter_relation"]
Positions = Literal["sine", "none"]
DescriptorNorm = Literal["layer", "none"]
ImageToken = Literal["mean", "embedding"]
AttentionStart = Literal["identity", "random"]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """Every setting that decides the network's shape and function; stored in the checkpoint."""

    token_dim: int
    """C, channels of a cached token; the shards decide it."""
    grid: int
    """g; a frame has L = g x g tokens; the shards decide it."""
    embedding_dim: int = 0
    """E, channels of the encoder's own frame embedding; the shards decide it. Read under
    image_token=embedding alone."""
    base_classes: int = 0
    """Outputs of the base-class head, the number of training classes; 0 = no head. Paper: inferred
    from MoLo, at video level. Measured: its loss does not help on JHMDB-21."""

    base_level: BaseLevel = "video"
    """Classify clips, or each frame (HyRSM), by the base-class head. Paper: inferred from MoLo."""

    pca_dim: int = 256
    """Components the fixed stem keeps, at most C. Paper: our choice (the relatives keep 2048)."""
    centre: bool = True
    """Subtract the mean training token. Paper: our choice. Measured: +2.1 points at 1-shot."""
    scale: float = 1.0
    """Root mean square of the stem's outputs; 0 leaves them as they are. Paper: our choice."""
    pool_grid: int = 0
    """Side to which tokens are averaged before all else, a divisor of g; 0 keeps them. Paper: our
    choice (a ViT has 14 x 14, a ResNet 7 x 7)."""
    image_token: ImageToken = "mean"
    """A frame's image token: the mean of its grid, or the encoder's own embedding (class token of a
    ViT) with a stem and projection of its own. Paper: inferred from HyRSM, MoLo / CLIP-FSAR."""
    dim: int = 128
    """d, width of the network. Paper: our choice, 512 as specified. Measured: 64/128/256 equal."""
    heads: int = 8
    """Attention heads. Paper: our choice."""
    dropout: float = 0.1
    """On residual branches, in training. Paper: our choice."""
    channel_dropout: float = 0.2
    """Share of stem channels dropped per clip, in training. Paper: our choice."""
    positions: Positions = "sine"
    """Fixed 2-D (grid) and 1-D (time) encodings in attention inputs. Paper: our choice."""

    instances: Instances = "masked_pool"
    """How a frame's instance embeddings arise (perception.py). Paper: inferred from DETR/MaskFormer
    (queries) or MoLo (autodecoder); masked_pool and masked_attention are our choice.
    Measured: masked_pool beats queries by about 1 point."""
    num_instances: int = 4
    """Instance queries per frame (n). Paper: our choice."""
    pooled_masks: PooledMasks = "union"
    """Pool one embedding by the union of the masks, or one by each. Paper: our choice."""
    perception_layers: int = 2
    """Depth of the instance encoder. Paper: our choice."""
    mask_floor: float = 0.02
    """Least pooling weight of a cell under a mask. Paper: our choice. Measured with masked_pool."""
    mask_width: int = 64
    """Channels of the mask decoder's pixel map. Paper: our choice, 128 as specified."""
    instance_init: float = 0.5
    """a in W = [I, a I] of the local descriptor. Paper: our choice. Measured with masked_pool."""
    descriptor_norm: DescriptorNorm = "layer"
    """Layer normalisation of the local descriptor. Paper: our choice."""

    spatial_temporal_pairs: int = 1
    """Pairs of attention sub-modules, 0 to 3. Paper: a pair is stated, their number our choice."""
    attention_parts: AttentionParts = "both"
    """Sub-modules of a pair; one alone is an ablation. Paper: both are stated."""
    attention_order: AttentionOrder = "spatial_first"
    """Which sub-module of a pair runs first. Paper: our choice."""
    attention_scope: AttentionScope = "joint"
    """Attend to all tokens, or only image to instance and back. Paper: our choice."""
    attention_start: AttentionStart = "identity"
    """Outputs of attention, fusion and their feed-forward parts begin at zero, so that step 0 is
    matching without them, or at random. Paper: our choice. Measured: from zero, matching of sets
    does not learn order in 150 steps (benchmarks.motion)."""
    global_fusion: GlobalFusion = "attention"
    """Global token: mean of local descriptors, or that plus learned attention. Paper: inferred from
    MoLo."""
    cross_video: CrossVideo = "none"
    """inter_relation conditions descriptors on the episode (inferred from HyRSM) and so gives up
    that a video is described once. Paper: our choice, nothing read mentions it."""

    prototypes: Prototypes = "before_matching"
    """Average the shots, or the distances to them (HyRSM). Paper: inferred from MoLo, CLIP-FSAR."""
    global_matching: GlobalMatching = "pooled"
    """pooled token (G1), otam alignment (G2), compound tokens (G3). Paper: a global term is stated,
    its form is our choice (G3 inferred from CPM)."""
    global_weight: float = 0.3
    """w in D = (1 - w) D_local + w D_global. Paper: our choice."""
    global_when: GlobalWhen = "always"
    """When w applies; 0 is used otherwise. Paper: test-time matching is stated, the rest open."""
    compound_tokens: int = 8
    """Global tokens under compound. Paper: inferred from CPM."""
    focused_tokens: int = 0
    """Tokens of parts of the clip beside them, matched by assignment. Paper: inferred from CPM (8).
    """
    cosine_epsilon: float = 0.0
    """Added to the denominator of every cosine. Paper: our choice (MoLo's code has 0.01)."""
    otam_temperature: float = 0.5
    """Lambda of the soft minimum under otam. Paper: inferred from CLIP-FSAR."""
    logit_scale: float = 8.0
    """s in logits = -s D. Paper: our choice. Measured: 8 to 16."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.dim % self.heads or self.dim % 4:
            raise ConfigError(
                f"dim={self.dim} with heads={self.heads}; dim must be a multiple of heads and of 4"
            )
        if self.attention_scope == "cross" and self.instances == "none":
            raise ConfigError(
                "attention_scope='cross' with instances='none'; there are no instance tokens to "
                "attend to; use attention_scope='joint'"
            )
        self._check_tokens()

    def _check_tokens(self) -> None:
        if self.pool_grid and self.grid % self.pool_grid:
            raise ConfigError(
                f"pool_grid={self.pool_grid} with grid={self.grid}; a divisor of grid is needed; "
                "pass one, or 0 to keep the grid"
            )
        if self.image_token == "embedding" and not self.embedding_dim:
            raise ConfigError(
                "image_token='embedding' with embedding_dim=0; the width of the shards' frame "
                "embeddings is needed; pass it as embedding_dim, or set image_token='mean'"
            )
        if self.focused_tokens and self.global_matching != "compound":
            raise ConfigError(
                f"focused_tokens={self.focused_tokens} with global_matching="
                f"{self.global_matching!r}; they are matched under compound alone; use "
                "global_matching='compound' or focused_tokens=0"
            )

    @property
    def side(self) -> int:
        """Side of the grid that the network works on."""
        return self.pool_grid or self.grid

    @property
    def num_stem_tokens(self) -> int:
        """Stem outputs of a frame: the grid's cells, after the embedding where it is used."""
        return self.side**2 + (self.image_token == "embedding")

    @property
    def stem_dim(self) -> int:
        """P, channels of the stem's output."""
        return min(self.pca_dim, self.token_dim)

    @property
    def mask_side(self) -> int:
        """Side in cells of the mask logits, hence of the mask targets; 0 = no masks."""
        if self.instances == "none":
            return 0
        return self.side if self.instances == "masked_attention" else 4 * self.side

    @property
    def num_instance_tokens(self) -> int:
        """I, instance embeddings per frame."""
        if self.instances == "none":
            return 0
        pooled = self.instances in ("masked_pool", "masked_attention")
        one = self.instances == "autodecoder" or (pooled and self.pooled_masks == "union")
        return 1 if one else self.num_instances

    @property
    def num_global_tokens(self) -> int:
        """M, global descriptors per clip."""
        return self.compound_tokens if self.global_matching == "compound" else 1

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `network_config` rebuilds this config."""
        return asdict(self)
