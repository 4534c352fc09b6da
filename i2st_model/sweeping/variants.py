"""The rows of a sweep's table: settings resolved, each once, those that cannot be left out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from i2st_model.checkpoints import CheckpointInfo
from i2st_model.copied_videos import find_copies
from i2st_model.leaks import Seen, find_seen
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.settings import change_config
from i2st_model.settings_scope import network_defaults, require_read, told
from i2st_model.stored.videos import StoredVideos
from i2st_model.training.config import TrainConfig
from i2st_model.training.initial import initial_info
from i2st_model.training.outcome import seen_classes
from pipeline.errors import ConfigError

BASE = "as given"
"""Row of the settings that the others are varied from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """One row of a sweep's table."""

    name: str
    config: TrainConfig


def plan_variants(
    config: TrainConfig, variants: Sequence[Sequence[str]], *, num_stored: int
) -> list[Variant]:
    """Resolve variants, leaving out those that equal an earlier one or need more frames.

    Args:
        config: what they are varied from.
        variants: words name=value of each.
        num_stored: frames that the shards store.

    Returns:
        At least one, in order.

    Raises:
        ConfigError: a word is no setting or one that the method does not read, or none of the
            variants is left.
    """
    planned: list[Variant] = []
    for words in variants:
        given = change_config(config, {}, list(words))
        changed = _plain(given, num_stored)
        # What all variants are given may be for the method of some: no training would begin.
        require_read(changed.method, told(changed))
        known = any(one.config == changed for one in planned)
        if not known and (changed.frames or 0) <= num_stored:
            planned.append(Variant(name=" ".join(words) or BASE, config=changed))
    if not planned:
        raise ConfigError(
            f"every variant has more frames than the {num_stored} that are stored; fewer were "
            "needed; extract with more --frames"
        )
    return planned


def copies_to_be_seen(variants: Sequence[Variant], store: StoredVideos, split: str) -> Seen:
    """Find videos of a split that are copies of what a variant is to be trained on.

    Args:
        variants: that are to be trained.
        store: shards of both.
        split: to evaluate them on.

    Returns:
        Videos to leave out of the episodes.
    """
    ids = [store.reader.video_ids[row] for row in store.rows_of(store.classes_of(split))]
    copies: dict[str, None] = {}
    for variant in variants:
        classes, initial = _to_be_seen(variant, store)
        known = [] if initial is None else initial.train_feature_hashes
        copies |= dict.fromkeys(find_copies(classes, known, store.index, ids))
    return Seen(videos=tuple(copies))


def require_apart(
    variants: Sequence[Variant], cells: Sequence[EpisodeSet], store: StoredVideos
) -> None:
    """Refuse, before anything is trained, to evaluate variants on what they will have seen.

    Args:
        variants: that are to be trained.
        cells: sets of episodes to evaluate them on.
        store: shards of both.

    Raises:
        ConfigError: says which classes or videos of a set a variant trains on.
    """
    for variant in variants:
        classes, initial = _to_be_seen(variant, store)
        hashes = np.array([] if initial is None else initial.train_video_hashes, dtype=np.int64)
        for cell in cells:
            seen = find_seen(classes, hashes, cell.class_names, cell.video_ids)
            if seen:
                raise ConfigError(
                    f"{variant.name}: it would be trained on {seen.counted()} of the evaluation; "
                    "unseen ones were needed; pass another --split, or train on other classes"
                )


def _to_be_seen(variant: Variant, store: StoredVideos) -> tuple[list[str], CheckpointInfo | None]:
    """Classes that a variant will have seen, and the run that it starts from."""
    initial, own = initial_info(variant.config), variant.config.classes
    return seen_classes(store.classes_of("train") if own is None else own, initial), initial


def _plain(config: TrainConfig, num_stored: int) -> TrainConfig:
    """Leave out what says no more than a default, so that equal settings are equal configs."""
    given = network_defaults(config.preset)
    network = {name: value for name, value in config.network.items() if given.get(name) != value}
    frames = None if config.frames == num_stored else config.frames
    return replace(config, network=network, frames=frames)
