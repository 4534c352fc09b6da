"""Training seeds of one configuration: what several runs on one side of a comparison have to be.

The interval over seeds speaks of the luck of a training. Runs that differ in anything else, or one
run that stands there twice, would make it speak of something else without a word.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from i2st_model.checkpoints import load_checkpoint
from i2st_model.evaluating.method_runs import MethodRun
from i2st_model.evaluating.provenance import trained_values
from i2st_model.records.results import Result
from pipeline.errors import ConfigError
from pipeline.shards.fingerprint import differences


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """One method as it was trained, or without training, as far as that is known."""

    word: str
    """What messages call it."""
    method: str
    seed: int | None = None
    sha256: str | None = None
    """Of the checkpoint; None for methods without training."""
    decided: Mapping[str, Any] = field(default_factory=dict)
    """What else decided the predictions, by name; what is absent is not known."""


def trained_by_run(entry: MethodRun) -> Trained:
    """Read how a method that is yet to be evaluated was trained.

    Args:
        entry: the method, with its run if it has one.

    Returns:
        What its checkpoint says.

    Raises:
        ConfigError: the run is not finished.
        CheckpointError: its checkpoint is damaged.
    """
    if entry.run is None:
        return Trained(word=entry.method, method=entry.method)
    values = trained_values(load_checkpoint(entry.run))
    return Trained(
        word=str(entry.run),
        method=entry.method,
        seed=values["train_seed"],
        sha256=values["checkpoint_sha256"],
        decided=values["training"],
    )


def trained_in_file(word: str, result: Result) -> Trained:
    """Say how the method of a result was trained.

    Args:
        word: what names the file.
        result: of that file.

    Returns:
        What the file says; older ones do not know the settings.
    """
    made_by = result.made_by
    seen = {"shards": made_by.digest, "clip_frames": made_by.frames, "used": made_by.precision}
    return Trained(
        word=word if made_by.run is None else f"{word} (run {made_by.run})",
        method=made_by.method,
        seed=made_by.train_seed,
        sha256=made_by.checkpoint_sha256,
        decided={**(made_by.training or {}), **seen},
    )


def require_one_configuration(side: str, trained: Sequence[Trained]) -> None:
    """Refuse a side that is more than training seeds of one configuration.

    Args:
        side: A or B.
        trained: all that stand there.

    Raises:
        ConfigError: two of them are one training, or differ in more than the seed.
    """
    for number, one in enumerate(trained):
        for other in trained[:number]:
            _require_seeds(side, other, one)


def _require_seeds(side: str, first: Trained, second: Trained) -> None:
    both = f"{side}: {first.word} and {second.word}"
    if first.sha256 == second.sha256 and first.method == second.method:
        what = "one training" if first.sha256 else "one method without training"
        raise ConfigError(f"{both} are {what}; {_NEEDED}")
    found = _difference(first, second)
    if found is not None:
        raise ConfigError(f"{both} differ in more than the seed: {found}; {_NEEDED}")
    if first.seed == second.seed:
        raise ConfigError(f"{both} are both of seed {first.seed}; {_NEEDED}")


_NEEDED = "trainings of one configuration with other seeds were needed; leave one out"


def _difference(first: Trained, second: Trained) -> str | None:
    """The first thing that differs, with both values; of settings that both know."""
    if first.method != second.method:
        return f"method {first.method!r} there and {second.method!r} here"
    known = first.decided.keys() & second.decided.keys()
    ours, theirs = ({key: one.decided[key] for key in known} for one in (first, second))
    classes = set(ours.pop("train_classes", ())) ^ set(theirs.pop("train_classes", ()))
    found = differences(ours, theirs)
    if classes and not found:
        return f"train class {min(classes)!r}, which one of them lacks"
    return found[0] if found else None
