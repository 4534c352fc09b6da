"""The two sides of a comparison: result files, training runs or methods, by what they are called.

A side is one word or several with commas between them, one per training seed. A word names a file
of `i2st evaluate --save`, of one of its methods as in FILE@METHOD, or the folder of a run, or a
method; a method that is trained stands for its newest run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from i2st_model.comparing.pairing import require_pairs
from i2st_model.comparing.trainings import (
    Trained,
    require_one_configuration,
    trained_by_run,
    trained_in_file,
)
from i2st_model.evaluating.method_runs import MethodRun, is_trained, method_of_run
from i2st_model.evaluating.run_choice import Content, content_of_shards, with_newest_runs
from i2st_model.methods import METHODS
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.results import Result, load_results
from i2st_model.runs import CONFIG_NAME
from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one word of a side stands for: results that are there, or a method to evaluate."""

    word: str
    kept: tuple[Result, ...] = ()
    """Of a result file; empty for methods and runs."""
    method: MethodRun | None = None


def read_sides(
    sides: Sequence[Sequence[str]], *, root: Path, shards: Path | None
) -> list[list[Part]]:
    """Find what the words of both sides stand for.

    Args:
        sides: words as they were typed.
        root: folder of all runs, searched for methods that are trained.
        shards: folder of the shards to evaluate on; by default those of the files or runs decide
            which run of a method is taken.

    Returns:
        Both sides, in parts: results, or methods with their runs.

    Raises:
        BackendError: a word is neither a file nor a folder, and no method has that name.
        ConfigError: a folder is no run, a trained method has no run, or a file holds several
            methods and none is named.
        RecordError: a file is no result file, or is damaged.
        ShardError: the shards are absent or damaged.
    """
    parts = [[_read_part(word) for word in side] for side in sides]
    every = [part for side in parts for part in side]
    content = content_of_shards(shards) if shards is not None else _content_of_files(every)
    asked = [part.method for part in every if part.method is not None]
    chosen = iter(with_newest_runs(asked, root=root, content=content))
    return [
        [part if part.method is None else replace(part, method=next(chosen)) for part in side]
        for side in parts
    ]


def _read_part(word: str) -> Part:
    name, at, method = word.rpartition("@")
    file = Path(word) if not at or Path(word).exists() else Path(name)
    if file.is_file():
        return Part(word=word, kept=_of_method(file, method if file != Path(word) else None))
    # A folder that only shares its name with a method is not what was meant.
    if (file / CONFIG_NAME).exists() or (file.is_dir() and word not in METHODS):
        return Part(word=word, method=MethodRun(method=method_of_run(file), run=file))
    if "/" in word and ":" not in word:
        raise ConfigError(
            f"{word} is absent; a result file, the folder of a run or the name of a method was "
            "needed; correct its path or its name"
        )
    is_trained(word)  # refuses what is no method
    return Part(word=word, method=MethodRun(method=word))


def _content_of_files(parts: Sequence[Part]) -> Content | None:
    first = next((part.kept[0] for part in parts if part.kept), None)
    if first is None:
        return None
    return Content(dataset=first.episodes.dataset, digest=first.made_by.digest)


def _of_method(file: Path, method: str | None) -> tuple[Result, ...]:
    results = load_results(file)
    names = list(dict.fromkeys(one.made_by.method for one in results))
    if method is None and len(names) > 1:
        raise ConfigError(
            f"{file} holds results of {', '.join(names)}; one method was needed; write "
            f"{file}@{names[0]}"
        )
    if method is not None and method not in names:
        raise ConfigError(
            f"{file} holds no results of {method}; one of {', '.join(names)} was needed; write "
            f"{file}@{names[0]}"
        )
    return tuple(one for one in results if one.made_by.method == (method or names[0]))


def kept_cells(sides: Sequence[Sequence[Part]]) -> list[EpisodeSet]:
    """Sets of episodes that every result file of both sides has.

    Args:
        sides: both, in parts.

    Returns:
        In the order of the first file; empty where no part is a result file.

    Raises:
        ConfigError: there are files, but no episodes that all of them have.
    """
    files = [part for side in sides for part in side if part.kept]
    shared = _cells(files[0]) if files else []
    for number, part in enumerate(files[1:], start=1):
        before, shared = shared, [cell for cell in shared if on_cell(part, cell)]
        if not shared:
            names = ", ".join(one.word for one in files[:number])
            raise ConfigError(
                f"{names} {'has' if number == 1 else 'have'} {_words(before)}, {part.word} has "
                f"{_words(_cells(part))}, of other clips; the same episodes were needed for pairs; "
                "evaluate all with the same --episode-file"
            )
    return shared


def _cells(part: Part) -> list[EpisodeSet]:
    return list({id(one.episodes): one.episodes for one in part.kept}.values())


def require_seeds(sides: Sequence[Sequence[Part]], cells: Sequence[EpisodeSet]) -> None:
    """Refuse sides that are more than training seeds, or whose seeds cannot be paired.

    Args:
        sides: both, in parts.
        cells: sets of episodes of the result files; empty where there are none.

    Raises:
        ConfigError: two runs of a side are one training or differ in more than their seed, a run
            is not finished, or both sides have several that are not equally many.
        CheckpointError: a checkpoint is damaged.
    """
    every: Sequence[EpisodeSet | None] = cells or [None]
    for cell in every:
        entries = [[(part.word, one) for part in s for one in _entries(part, cell)] for s in sides]
        for name, side in zip("AB", entries, strict=True):
            if len(side) > 1:
                require_one_configuration(name, [_trained(word, one) for word, one in side])
        require_pairs(*map(len, entries))


def _entries(part: Part, cell: EpisodeSet | None) -> Sequence[MethodRun | Result]:
    if part.method is not None:
        return [part.method]
    return [] if cell is None else on_cell(part, cell)


def _trained(word: str, entry: MethodRun | Result) -> Trained:
    if isinstance(entry, MethodRun):
        return trained_by_run(entry)
    return trained_in_file(word, entry)


def on_cell(part: Part, cell: EpisodeSet) -> list[Result]:
    """Results of a file on one set of episodes; several where it holds several runs."""
    return [one for one in part.kept if one.episodes is cell or one.episodes.same_episodes(cell)]


def in_order_of_seeds(
    first: Sequence[Result], second: Sequence[Result]
) -> tuple[list[Result], list[Result], bool]:
    """Pair runs of the same training seed where both sides have the same seeds.

    Args:
        first: results of one side.
        second: of the other.

    Returns:
        Both sides, and whether pairs share their seed.
    """
    ours, theirs = ([one.made_by.train_seed for one in side] for side in (first, second))
    if None in ours or len(set(ours)) < len(ours) or set(ours) != set(theirs):
        return list(first), list(second), False
    place = {seed: number for number, seed in enumerate(ours)}
    return list(first), sorted(second, key=lambda one: place[one.made_by.train_seed]), True


def _words(cells: Sequence[EpisodeSet]) -> str:
    form = "{0.num_episodes} {0.way}-way {0.shot}-shot of {0.dataset} {0.split}, seed {0.seed}"
    return ", ".join(map(form.format, cells))
