"""A sweep as a table: accuracy of every variant, its difference to the first, and what to note."""

from collections.abc import Sequence

from i2st_model.comparison import Comparison, compare
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.results import Result
from i2st_model.reporting.result_tables import Cell, ResultTable, Row
from i2st_model.sweeping.variants import Variant


def compare_variants(found: Sequence[Sequence[Sequence[Result]]]) -> list[list[Comparison]]:
    """Compare every variant with the first one.

    Args:
        found: for each variant and cell the results of its seeds, see `evaluate_runs`.

    Returns:
        For each variant one comparison per cell; of the first with itself, too.
    """
    return [
        [
            compare(own, first, more_seeds="pass --seeds 3")
            for own, first in zip(cells, found[0], strict=True)
        ]
        for cells in found
    ]


def sweep_table(
    variants: Sequence[Variant],
    cells: Sequence[EpisodeSet],
    compared: Sequence[Sequence[Comparison]],
    *,
    over: str,
    notes: Sequence[str],
) -> ResultTable:
    """Arrange a sweep: a row per variant, accuracy and difference to the first row per cell.

    Args:
        variants: rows.
        cells: ways and shots.
        compared: see `compare_variants`.
        over: which interval of the differences, of `i2st_model.comparison.QUESTIONS`.
        notes: sentences below the table.

    Returns:
        The table.
    """
    several = len(variants) > 1
    columns: list[str] = []
    for cell in cells:
        title = f"{cell.way}-way {cell.shot}-shot"
        columns += [title, *([f"{title}, to first row"] if several else [])]
    rows = []
    for number, (variant, own) in enumerate(zip(variants, compared, strict=True)):
        words: list[Cell] = []
        for one in own:
            difference = one.intervals[over] if number else None
            words += [one.first, *([difference] if several else [])]
        rows.append(Row(name=variant.name, cells=tuple(words)))
    return ResultTable(
        columns=tuple(columns), rows=tuple(rows), notes=tuple(notes), head="settings"
    )


def sweep_notes(
    cell: EpisodeSet,
    compared: Sequence[Sequence[Comparison]],
    *,
    seeds: int,
    over: str,
    selected_on_val: bool,
) -> list[str]:
    """Say what the figures are, and what they must not be taken for.

    Args:
        cell: the first set of episodes.
        compared: see `compare_variants`.
        seeds: trainings of each variant.
        over: which interval of the differences.
        selected_on_val: whether val chose the step of the weights.

    Returns:
        Sentences below the table.
    """
    first, several = compared[0][0], len(compared) > 1
    units = first.over(over)
    differences = f"; differences with 95 % intervals over {units}" if several else ""
    notes = [
        f"{cell.dataset} {cell.split}: mean accuracy in percent over {cell.num_episodes} episodes "
        f"of {first.num_classes} classes and {seeds} {'trainings' if seeds > 1 else 'training'}, "
        f"+/- 95 % half-width over episodes{differences}; digest {cell.digest[:12]}.",
    ]
    # The first row is compared with itself, where nothing differs.
    every = [one.why_not for own in compared[1:] for one in own]
    reasons = dict.fromkeys(why_not[over] for why_not in every if over in why_not)
    notes += [f"no interval over {units}: {why}." for why in reasons]
    if cell.split == "test":
        notes.append("Read on the test split: a setting chosen by this table is chosen on test.")
    elif cell.split == "val" and selected_on_val:
        notes.append(
            "Val has chosen the step of the weights, too, so accuracies are a little high."
        )
    return notes
