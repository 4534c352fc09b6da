"""What an evaluation found: accuracies over episodes and by class, and what they are made of.

Shape letters: E episodes, N way, q queries per class.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2st_model.evaluating.config import EvaluateConfig
from i2st_model.records.results import Result
from i2st_model.statistics import Accuracy, mean_accuracy


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What an evaluation found."""

    dataset: str
    config: EvaluateConfig
    accuracy: Accuracy
    per_class: dict[str, float]
    """Class -> percent of its queries that were recognised; classes that were never drawn lack."""
    result: Result
    """Episodes and predictions, ready to be saved or compared."""
    checkpoint: str | None
    """Path of the checkpoint, None for methods without training."""

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.result.made_by.method

    @property
    def per_episode(self) -> NDArray[np.float64]:
        """(E,) accuracy in [0, 1], for paired differences."""
        return self.result.per_episode

    @property
    def num_videos(self) -> int:
        """Videos of the classes that episodes are drawn from."""
        return len(self.result.episodes.video_ids)

    @property
    def digest(self) -> str:
        """Of the shards."""
        return self.result.made_by.digest

    @property
    def dropped_classes(self) -> tuple[str, ...]:
        """Classes left out as too small."""
        return self.result.episodes.dropped_classes

    def sentence(self) -> str:
        """The accuracy with its interval, and what it is of."""
        config = self.config
        knows = " (knows the names of these classes)" * self.result.made_by.uses_class_names
        return (
            f"{self.method}{knows} on {self.dataset} {config.split} ({len(self.per_class)} "
            f"classes, {self.num_videos} videos), {config.way}-way {config.shot}-shot, "
            f"{config.episodes} episodes: {self.accuracy} %"
        )

    def to_json(self) -> dict[str, Any]:
        """JSON values; accuracies in percent."""
        config = self.config
        return {
            "method": self.method,
            "uses_class_names": self.result.made_by.uses_class_names,
            "dataset": self.dataset,
            "split": config.split,
            "classes": None if config.classes is None else list(config.classes),
            "way": config.way,
            "shot": config.shot,
            "queries": config.queries,
            "episodes": config.episodes,
            "seed": config.seed,
            "disjoint_groups": config.disjoint_groups,
            "precision": config.precision,
            "accuracy": self.accuracy.mean,
            "half_width": self.accuracy.half_width,
            "num_classes": len(self.per_class),
            "num_videos": self.num_videos,
            "per_class": self.per_class,
            "dropped_classes": list(self.dropped_classes),
            "digest": self.digest,
            "checkpoint": self.checkpoint,
        }


def per_class_accuracy(result: Result) -> dict[str, float]:
    """Percent of each class's queries that were recognised, over all episodes that drew it.

    Args:
        result: of all episodes.

    Returns:
        Class name -> percent, in the order of class numbers; classes never drawn are absent.
    """
    numbers, names = result.episodes.classes.ravel(), result.episodes.class_names
    drawn = np.bincount(numbers, minlength=len(names))
    share = result.correct.mean(axis=2).ravel()
    right = np.bincount(numbers, weights=share, minlength=len(names))
    return {
        names[int(number)]: float(100.0 * right[number] / drawn[number])
        for number in np.flatnonzero(drawn)
    }


def evaluation_of(
    result: Result, config: EvaluateConfig, *, dataset: str, checkpoint: str | None
) -> Evaluation:
    """Sum up what was predicted.

    Args:
        result: episodes and predictions.
        config: of the evaluation; what the episodes say goes before it.
        dataset: name of the dataset that was read.
        checkpoint: path of the checkpoint, None for methods without training.

    Returns:
        Accuracies, and what they are made of.
    """
    episodes = result.episodes
    return Evaluation(
        dataset=dataset,
        config=replace(
            config,
            split=episodes.split or config.split,
            classes=None if episodes.split else config.classes or episodes.class_names,
            way=episodes.way,
            shot=episodes.shot,
            queries=episodes.queries,
            episodes=episodes.num_episodes,
            seed=episodes.seed,
            disjoint_groups=episodes.disjoint_groups,
        ),
        accuracy=mean_accuracy(result.per_episode),
        per_class=per_class_accuracy(result),
        result=result,
        checkpoint=checkpoint,
    )
