"""The protocol of few-shot methods: prepare each clip once, then score episodes.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames, L grid cells, C token
channels, D embedding channels.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from i2st_model.methods import Features
from i2st_model.methods.clips import Clips, TrainStatistics


class FewShotMethod(nn.Module, ABC):
    """A few-shot classifier over cached features.

    A subclass names itself, says what it needs, and defines `prepare` and `score`; that gives it
    the command line, batched evaluation, statistics and, where it has weights, training. `fit` is
    called once, before anything else and before weights are loaded: layers whose size depends on
    the features are made there, from torch's RNG. Constructor arguments are the method's options.
    """

    name: str
    """What reports call it; a class attribute, unless options were typed behind it."""
    needs: ClassVar[Features] = "frame_embedding"
    """Which cached feature `prepare` takes."""
    needs_embedding: bool = False
    """Whether it takes frame embeddings beside tokens."""
    trainable: ClassVar[bool] = False
    """Whether it has weights after `fit`, so that it is used from a training run alone."""
    learning_rate: ClassVar[float] = 1e-3
    """Rate that suits its weights on frozen features; `i2st train` takes it unless told."""
    reading_options: ClassVar[tuple[str, ...]] = ()
    """Options that say how trained weights are read: they may stand behind the name of a trained
    method wherever it is evaluated, and are none of its run's."""
    uses_class_names: ClassVar[bool] = False
    """Whether it knows the names of the classes it is tested on; marked in every report."""
    needs_train_mean: bool = False
    """Whether `fit` has to be given the mean embedding of the training split."""
    classes_apart: bool = False
    """Whether the score of a class depends on no other class and on no other query."""
    shots_apart: bool = False
    """Whether a score is the mean over shots of the scores of single shots. With both, or with
    ``classes_apart`` and one shot, a table of all pairs of videos holds every score."""
    averages_shots: bool = False
    """Whether `score` needs of the support no more than the mean over shots of every tensor, so
    that it may be given that as one shot."""

    def __init__(self) -> None:
        super().__init__()

    def fit(self, train: TrainStatistics) -> None:
        """Take what the training split gives; nothing unless a subclass wants it."""

    @abstractmethod
    def prepare(self, clips: Clips) -> dict[str, Tensor]:
        """Make of each clip, by itself, what `score` compares. Differentiable where trainable.

        Args:
            clips: B clips.

        Returns:
            Named tensors with first axis B.
        """

    @abstractmethod
    def score(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Score every query clip of every episode against every class. Differentiable as `prepare`.

        Args:
            support: what `prepare` made, gathered: leading axes (E, N, K).
            query: the same with leading axes (E, Q).

        Returns:
            (E, Q, N) float logits: softmax over the last axis gives class probabilities.
        """


def mean_of_shots(values: Tensor) -> Tensor:
    """Average shots, (E, N, K, ...) to (E, N, ...); a single one is not copied."""
    return values[:, :, 0] if values.shape[2] == 1 else values.mean(dim=2)
