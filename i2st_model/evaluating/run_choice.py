"""Which run stands for a trained method: those that were named, else the newest that fits best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from i2st_model.evaluating.method_runs import (
    NETWORK_METHOD,
    MethodRun,
    is_trained,
    method_of_run,
)
from i2st_model.methods.options import split_spec
from i2st_model.runs import CHECKPOINT_NAME, LATEST_NAME, read_config, unfinished_runs
from pipeline.errors import ConfigError
from pipeline.shards.index import ShardIndex


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """Which features there are: what shards hold, and what runs and results remember of them."""

    dataset: str | None
    digest: str | None


def content_of_shards(folder: Path) -> Content:
    """Content of a folder of shards.

    Args:
        folder: of the shards.

    Returns:
        What its index says.

    Raises:
        ShardError: it holds no shards, or they are damaged.
    """
    index = ShardIndex.load(folder)
    return Content(dataset=index.dataset_name, digest=index.digest)


def content_of_run(run: Path) -> Content:
    """Content of the shards that a run was trained on.

    Args:
        run: its folder.

    Returns:
        What its config.json says.

    Raises:
        ConfigError: the folder holds no run.
        CheckpointError: its config.json is damaged.
    """
    values = read_config(run)
    return Content(dataset=values.get("dataset"), digest=values.get("digest"))


def newest_run_of(method: str, root: Path, content: Content | None = None) -> Path:
    """Newest finished run of a method: of these very shards, else of their dataset, else of any.

    Args:
        method: a trained one.
        root: folder of all runs.
        content: of the shards that the run is for; None asks for the newest of all.

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

    def rank(path: Path) -> tuple[int, int, str]:
        # The name breaks ties of coarse clocks, so that the answer never depends on the listing.
        return _nearness(path.parent, content), path.stat().st_mtime_ns, path.parent.name

    if finished:
        return max(finished, key=rank).parent
    unfinished = [run for run in unfinished_runs(root) if _trained(run, method)]
    state = f", {unfinished[0]} is unfinished" if unfinished else ""
    remedy = f"--run {unfinished[0]} --resume" if unfinished else f"--method {method}"
    raise ConfigError(
        f"no finished run of {method} in {root}{state}; a checkpoint was needed; "
        f"run `i2st train {remedy}`"
    )


def choose_method_runs(
    methods: Sequence[str] | None,
    runs: Sequence[Path],
    *,
    root: Path,
    shards: Path | None = None,
) -> list[MethodRun]:
    """Decide what is evaluated.

    Args:
        methods: as they were asked for, with or without options; None where none was.
        runs: folders of runs, each of one method.
        root: folder of all runs, searched for methods that ``runs`` lack.
        shards: folder of the shards to evaluate on; by default those of the first run decide.

    Returns:
        One entry per method without training and per run, methods in the order asked for.

    Raises:
        BackendError: no method has a name that was asked for.
        ConfigError: a run is of no method asked for, or a trained method has no finished run.
        ShardError: the shards are absent or damaged.
    """
    of_runs = {run: method_of_run(run) for run in dict.fromkeys(runs)}
    names = list(dict.fromkeys(methods or of_runs.values() or [NETWORK_METHOD]))
    for run, method in of_runs.items():
        if not any(split_spec(name)[0] == method for name in names):
            raise ConfigError(
                f"{run} is a run of {method}, asked for: {', '.join(names)}; a run of one of these "
                f"was needed; add {method} to --method"
            )
    chosen: list[MethodRun] = []
    for name in names:
        own = [run for run, method in of_runs.items() if method == split_spec(name)[0]]
        chosen += [MethodRun(method=name, run=run) for run in own] or [MethodRun(method=name)]
    return with_newest_runs(
        chosen, root=root, content=content_of_shards(shards) if shards else None
    )


def with_newest_runs(
    chosen: Sequence[MethodRun], *, root: Path, content: Content | None
) -> list[MethodRun]:
    """Give trained methods without a run their newest one, all of one content if there are such.

    Args:
        chosen: methods, with or without runs.
        root: folder of all runs.
        content: of the shards they are for; by default that of the first run.

    Returns:
        The same methods in their order.

    Raises:
        BackendError: no method has a name that was asked for.
        ConfigError: a trained method has no finished run.
    """
    given = [one.run for one in chosen if one.run is not None]
    if content is None and given:
        content = content_of_run(given[0])
    found = []
    for one in chosen:
        if one.run is None and is_trained(one.method):
            run = newest_run_of(split_spec(one.method)[0], root, content)
            one, content = replace(one, run=run), content or content_of_run(run)
        found.append(one)
    return found


def _nearness(run: Path, content: Content | None) -> int:
    """2 of the same shards, 1 of the same dataset, 0 of others."""
    if content is None:
        return 0
    trained = content_of_run(run)
    return 2 if trained.digest == content.digest else int(trained.dataset == content.dataset)


def _trained(run: Path, method: str) -> bool:
    try:
        return method_of_run(run) == method
    except ConfigError:  # a checkpoint that was copied in without its config
        return False
