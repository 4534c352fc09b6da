"""Which methods a command is about, and the training run that each trained one comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2st_model.methods import get_method
from i2st_model.methods.options import split_spec
from i2st_model.runs import CHECKPOINT_NAME, LATEST_NAME, read_config, unfinished_runs
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
        ConfigError: options stand behind a trained method, whose run has its own.
    """
    name, options = split_spec(method)
    trained = name == NETWORK_METHOD or get_method(method).trainable
    if trained and options:
        raise ConfigError(
            f"method {method!r} has options, a trained method has those of its run; the name alone "
            f"was needed; pass --method {name}"
        )
    return trained


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


def newest_run_of(method: str, root: Path) -> Path:
    """Newest finished run of a method.

    Args:
        method: a trained one.
        root: folder of all runs.

    Returns:
        The run's folder.

    Raises:
        ConfigError: there is none.
    """
    finished = [
        path
        for path in root.glob(f"*/{CHECKPOINT_NAME}")
        if path.parent.name != LATEST_NAME and _trained(path.parent, method)
    ]
    if finished:
        # The name breaks ties of coarse clocks, so that the answer never depends on the listing.
        return max(finished, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent
    unfinished = [run for run in unfinished_runs(root) if _trained(run, method)]
    state = f", {unfinished[0]} is unfinished" if unfinished else ""
    remedy = f"--run {unfinished[0]} --resume" if unfinished else f"--method {method}"
    raise ConfigError(
        f"no finished run of {method} in {root}{state}; a checkpoint was needed; "
        f"run `i2st train {remedy}`"
    )


def choose_method_runs(
    methods: Sequence[str] | None, runs: Sequence[Path], *, root: Path
) -> list[MethodRun]:
    """Decide what is evaluated.

    Args:
        methods: as they were asked for, with or without options; None where none was.
        runs: folders of runs, each of one method.
        root: folder of all runs, searched for methods that ``runs`` lack.

    Returns:
        One entry per method without training and per run, methods in the order asked for.

    Raises:
        BackendError: no method has a name that was asked for.
        ConfigError: a run is of no method asked for, or a trained method has no finished run.
    """
    of_runs = {run: method_of_run(run) for run in dict.fromkeys(runs)}
    names = list(dict.fromkeys(methods or of_runs.values() or [NETWORK_METHOD]))
    for run, method in of_runs.items():
        if method not in names:
            raise ConfigError(
                f"{run} is a run of {method}, asked for: {', '.join(names)}; a run of one of these "
                f"was needed; add {method} to --method"
            )
    chosen: list[MethodRun] = []
    for name in names:
        own: list[Path | None] = [run for run, method in of_runs.items() if method == name]
        if not own:
            own = [newest_run_of(name, root) if is_trained(name) else None]
        chosen += [MethodRun(method=name, run=run) for run in own]
    return chosen


def _trained(run: Path, method: str) -> bool:
    try:
        return method_of_run(run) == method
    except ConfigError:  # a checkpoint that was copied in without its config
        return False
