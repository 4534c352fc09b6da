"""The episodes that `evaluate` and `compare` are asked for: drawn as flags say, or replayed."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from i2st_model.commands.lists import numbers
from pipeline.commands.console import note

OF_EPISODES = "split way shot queries episodes seed disjoint_groups drop_small_classes drop_seen"
"""Flags that an episode file answers."""
FIELDS = (
    "split",
    "queries",
    "episodes",
    "seed",
    "disjoint_groups",
    "drop_small_classes",
    "precision",
    "device",
)
"""Flags that are fields of EvaluateConfig; --way and --shot take several values each."""
CELL = ("way", "shot")
"""What tells sets of episodes apart."""


def asked_configs(ctx: typer.Context) -> tuple[Any, list[Any]]:
    """Config of an evaluation as flags ask for it, and one for every way and shot.

    Args:
        ctx: of a command with all of these flags.

    Returns:
        EvaluateConfigs.

    Raises:
        ConfigError: a value is out of range or cannot be read.
    """
    from i2st_model.evaluating.config import EvaluateConfig
    from i2st_model.evaluating.method_table import cell_configs

    config = EvaluateConfig(**{name: ctx.params[name] for name in FIELDS})
    ways, shots = (numbers(f"--{name}", ctx.params[name]) for name in ("way", "shot"))
    return config, cell_configs(config, ways, shots)


def asked_settings(config: Any, configs: Sequence[Any]) -> dict[str, Any]:
    """Settings of an evaluation, to be shown: with each way and shot once.

    Args:
        config: of all its episodes.
        configs: one per way and shot.

    Returns:
        Values by name.
    """
    each = {name: list(dict.fromkeys(getattr(one, name) for one in configs)) for name in CELL}
    return {**asdict(config), **each}


def open_cells(
    methods: Sequence[Any],
    configs: Sequence[Any],
    *,
    episode_file: Path | None,
    other_features: bool,
    drop_seen: bool,
) -> list[Any]:
    """Sets of episodes: replayed from a file, or drawn for every way and shot.

    Args:
        methods: ReadyMethods that are to be evaluated.
        configs: one per way and shot.
        episode_file: replayed instead of drawing.
        other_features: accept a file of the same videos seen by another encoder.
        drop_seen: leave out what training saw, before anything is drawn.

    Returns:
        EpisodeSets.

    Raises:
        ConfigError: the classes, videos or groups do not suffice, or training saw some of a file.
        RecordError: the file is no episode file, is damaged, or does not fit the shards.
        ShardError: training saw copies of some of a file.
    """
    from i2st_model.evaluating.method_table import draw_cells, seen_by_any
    from i2st_model.leaks import NOTHING_SEEN
    from i2st_model.records.episode_files import load_episodes

    if episode_file is not None:
        replayed = load_episodes(episode_file)
        note(
            f"episodes: {episode_file}: {replayed.num_episodes} {replayed.way}-way "
            f"{replayed.shot}-shot, seed {replayed.seed}"
        )
        require_replayable(methods, [replayed], episode_file, other_features=other_features)
        return [replayed]
    seen = seen_by_any(methods, configs[0]) if drop_seen else NOTHING_SEEN
    if seen:
        note(f"left out, as training saw them: {seen.counted()}")
    drawn = draw_cells(methods[0].store, configs, seen)
    small = dict.fromkeys(name for cell in drawn for name in cell.dropped_classes)
    if small:
        note(f"left out, as too few videos are there: {', '.join(map(repr, small))}")
    note_centred_on(methods, drawn)
    return drawn


def require_replayable(
    methods: Sequence[Any], cells: Sequence[Any], file: Path, *, other_features: bool
) -> None:
    """Refuse episodes of a file that do not fit the shards, or that training saw.

    Args:
        methods: ReadyMethods that are to be evaluated.
        cells: EpisodeSets of the file.
        file: for messages.
        other_features: accept the same videos seen by another encoder.

    Raises:
        ConfigError: training saw some of a set.
        RecordError: a set does not fit the shards.
        ShardError: training saw copies of some of a set.
    """
    from i2st_model.copied_videos import require_no_copies
    from i2st_model.leaks import REPLAYED, require_unseen
    from i2st_model.records.episode_checks import require_fit

    for cell in cells:
        require_fit(file, cell, methods[0].store, other_features=other_features)
        for one in methods:
            if one.checkpoint is not None:
                require_unseen(one.checkpoint, cell, remedy=REPLAYED)
                require_no_copies(one.checkpoint, cell, one.store.index, remedy=REPLAYED)
    note_centred_on(methods, cells)


def note_chosen_on(results: Sequence[Any]) -> None:
    """Say whose weights were chosen on the very classes of the evaluation.

    Args:
        results: of the evaluation.
    """
    from i2st_model.evaluating.optimism import choice_notes

    for said in choice_notes(results):
        note(said)


def note_centred_on(methods: Sequence[Any], cells: Sequence[Any]) -> None:
    """Say which methods are centred on the very classes of the evaluation.

    Args:
        methods: ReadyMethods that are evaluated.
        cells: EpisodeSets.
    """
    from i2st_model.evaluating.optimism import centring_notes

    for said in centring_notes(methods, cells):
        note(said)
