"""The two sides of a comparison: result files, training runs or methods, by what they are called.

A side is one word or several with commas between them, one per training seed. A word names a file
of `i2st evaluate --save`, of one of its methods as in FILE@METHOD, or the folder of a run, or a
method; a method that is trained stands for its newest run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from i2st_model.evaluating.method_runs import MethodRun, is_trained, method_of_run, newest_run_of
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


def read_part(word: str, *, root: Path) -> Part:
    """Find what a word of a side stands for.

    Args:
        word: as it was typed.
        root: folder of all runs, searched for methods that are trained.

    Returns:
        Results, or a method with its run.

    Raises:
        BackendError: the word is neither a file nor a folder, and no method has that name.
        ConfigError: a folder is no run, a trained method has no run, or a file holds several
            methods and none is named.
        RecordError: the file is no result file, or is damaged.
    """
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
            "needed; mend it"
        )
    run = newest_run_of(word, root) if is_trained(word) else None
    return Part(word=word, method=MethodRun(method=word, run=run))


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
    if not files:
        return []
    every = list({id(one.episodes): one.episodes for one in files[0].kept}.values())
    shared = [cell for cell in every if all(_on(part, cell) for part in files)]
    if not shared:
        other = next(part for part in files if not any(_on(part, cell) for cell in every))
        raise ConfigError(
            f"{files[0].word} has {_words(files[0])}, {other.word} has {_words(other)}, of other "
            "clips; the same episodes were needed for pairs; evaluate both with the same "
            "--episode-file"
        )
    return shared


def on_cell(part: Part, cell: EpisodeSet) -> list[Result]:
    """Results of a file on one set of episodes; several where it holds several runs."""
    return _on(part, cell)


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


def _on(part: Part, cell: EpisodeSet) -> list[Result]:
    return [one for one in part.kept if one.episodes is cell or one.episodes.same_episodes(cell)]


def _words(part: Part) -> str:
    cells = {id(one.episodes): one.episodes for one in part.kept}.values()
    return ", ".join(
        f"{cell.num_episodes} {cell.way}-way {cell.shot}-shot of {cell.dataset} {cell.split}, "
        f"seed {cell.seed}"
        for cell in cells
    )
