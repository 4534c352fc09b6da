"""A method and the training run it comes from: whether it needs one, and what a table calls it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2st_model.methods import get_method, method_class
from i2st_model.methods.options import check_options, split_spec
from i2st_model.runs import read_config
from pipeline.errors import ConfigError

NETWORK_METHOD = "i2st"
"""Built from a run's network; the other methods are built from their names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodRun:
    """A method, with the run its weights come from."""

    method: str
    run: Path | None = None
    """None for methods without training."""


def is_trained(method: str) -> bool:
    """Whether a method is used from a training run alone.

    Args:
        method: its name, with or without options behind it.

    Returns:
        False for methods without weights.

    Raises:
        BackendError: no method has that name.
        ConfigError: options that only its run can have stand behind a trained method.
    """
    name, options = split_spec(method)
    build = method_class(name)
    if not build.trainable:
        get_method(method)
        return False
    if set(options) - set(build.reading_options):
        own = f" or {', '.join(build.reading_options)} behind it" if build.reading_options else ""
        raise ConfigError(
            f"method {method!r} has options, a trained method has those of its run; the name alone"
            f"{own} was needed; pass --method {name}"
        )
    check_options(name, build, options)
    return True


def method_of_run(run: Path) -> str:
    """Name of the method that a run trained.

    Args:
        run: its folder.

    Returns:
        A method's name.

    Raises:
        ConfigError: the folder holds no run.
        CheckpointError: its config.json is damaged.
    """
    train = read_config(run).get("train")
    return str(train.get("method", NETWORK_METHOD)) if isinstance(train, dict) else NETWORK_METHOD


def run_labels(chosen: Sequence[MethodRun]) -> list[str]:
    """Names for the rows of a table: the method's, with the run's where several runs of it are.

    Args:
        chosen: methods with their runs.

    Returns:
        One label each; runs whose folders have one name are told apart by the folders above.
    """
    several = Counter(one.method for one in chosen)
    return [
        f"{one.method} {_telling_name(one.run, [other.run for other in chosen])}"
        if several[one.method] > 1 and one.run is not None
        else one.method
        for one in chosen
    ]


def _telling_name(run: Path, runs: Sequence[Path | None]) -> str:
    """The end of a path that no other path ends with."""
    others = [other for other in runs if other not in (None, run)]
    for count in range(1, len(run.parts)):
        end = run.parts[-count:]
        if not any(other is not None and other.parts[-count:] == end for other in others):
            return str(Path(*end))
    return str(run)
