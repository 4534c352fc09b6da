"""TRX: query-specific class prototypes made of ordered tuples of frames.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, C embedding channels.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from i2st_model.matching import unit
from i2st_model.methods.centred import CentredMethod
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.methods.trx_tuples import TupleAttention
from pipeline.errors import ConfigError

POSITION_SCALE = 0.1
"""Size of the positional encoding, as in the released code."""


class Trx(CentredMethod):
    """Temporal-relational cross-transformers on cached frame embeddings.

    Perrett et al., "Temporal-relational crosstransformers for few-shot action recognition", CVPR
    2021, arXiv:2101.06184: each tuple of query frames attends to all tuples of a class's support
    clips; a logit is minus the squared distance of its value to what it attends to, mean over
    tuples and then over cardinalities, as in the released code. Differences: the frames are
    centred on the training mean and scaled to a mean square of one (``centre``, ``scale``), so that
    positional encoding and logits do not depend on the encoder's units; one draw of dropout serves
    all cardinalities.

    Args:
        cardinalities: frames per tuple; pairs and triplets as in the paper.
        width: channels of a key and of a value; 1152 as in the paper.
        dropout: of frame embeddings while training; 0.1 as in the released code.
        centre: subtract the mean training frame.
        scale: bring each frame to a mean square of one.
        temperature: distances are divided by it; 1 in the paper.

    Raises:
        ConfigError: an option has no meaning.
    """

    name = "trx"
    trainable = True
    learning_rate = 1e-5  # measured on JHMDB-21: 1e-4 loses 1 to 5 points on new classes, 1e-3 13
    classes_apart = True

    def __init__(
        self,
        *,
        cardinalities: Sequence[int] = (2, 3),
        width: int = 1152,
        dropout: float = 0.1,
        centre: bool = True,
        scale: bool = True,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(centre=centre)
        _check_options(cardinalities, width, dropout, temperature)
        self.cardinalities, self.width = tuple(cardinalities), width
        self.scale, self.temperature = scale, temperature
        self.dropout = nn.Dropout(dropout)
        self.tuples = nn.ModuleDict()

    def fit(self, train: TrainStatistics) -> None:
        """Keep the mean embedding of the training split's frames and make the layers."""
        super().fit(train)
        self.tuples = nn.ModuleDict(
            {
                str(count): TupleAttention(train.embedding_dim, cardinality=count, width=self.width)
                for count in self.cardinalities
            }
        )

    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Project the frames of each clip for each cardinality.

        Args:
            clips: (B, T, C) frame embeddings.

        Returns:
            What `TupleAttention.prepare` makes, its names preceded by the cardinality and a dot.

        Raises:
            ConfigError: the clips have fewer frames than the longest tuple.
        """
        frames = self.centred(clips.features)
        T, C = frames.shape[1:]
        if max(self.cardinalities) > T:
            raise ConfigError(
                f"clips have {T} frames, cardinalities={list(self.cardinalities)} need "
                f"{max(self.cardinalities)}; lower cardinalities, or take or extract more frames"
            )
        if self.scale:
            frames = unit(frames) * math.sqrt(C)
        frames = self.dropout(frames + positions(T, C).to(frames))
        return {
            f"{count}.{name}": value
            for count, attention in self._attentions().items()
            for name, value in attention.prepare(frames).items()
        }

    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score what `prepare` made, (E, N, K, ...) and (E, Q, ...): (E, Q, N) float."""
        distances = [
            attention.distance(_part(support, count), _part(query, count))
            for count, attention in self._attentions().items()
        ]
        return torch.stack(distances).mean(dim=0) / -self.temperature

    def _attentions(self) -> dict[str, TupleAttention]:
        return {
            count: module
            for count, module in self.tuples.items()
            if isinstance(module, TupleAttention)
        }


def positions(num_frames: int, channels: int) -> Tensor:
    """(T, C) float64: sines and cosines in turn of frame number times falling frequencies."""
    steps = torch.arange(0, channels, 2, dtype=torch.float64)
    angles = torch.arange(num_frames)[:, None] * torch.exp(steps * (-math.log(10_000) / channels))
    waves = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
    return POSITION_SCALE * waves[:, :channels]


def _part(prepared: Mapping[str, Tensor], count: str) -> dict[str, Tensor]:
    prefix = f"{count}."
    return {
        name.removeprefix(prefix): value
        for name, value in prepared.items()
        if name.startswith(prefix)
    }


def _check_options(
    cardinalities: Sequence[int], width: int, dropout: float, temperature: float
) -> None:
    whole = all(isinstance(count, int) and count > 0 for count in cardinalities)
    if not cardinalities or not whole or len(set(cardinalities)) < len(cardinalities):
        raise ConfigError(
            f"cardinalities={list(cardinalities)}; different whole numbers above 0 are needed"
        )
    if width < 1:
        raise ConfigError(f"width={width}; 1 or more is needed")
    if not 0 <= dropout < 1:
        raise ConfigError(f"dropout={dropout}; 0 or more and below 1 is needed")
    if not temperature > 0:
        raise ConfigError(f"temperature={temperature}; a number above 0 is needed")
