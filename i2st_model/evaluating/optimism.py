"""Accuracies that are optimistic and not refused: on what chose the weights, or centred the method.

Classes are compared by `spelling`, whichever dataset they were met in.
"""

from collections.abc import Iterable, Sequence

from i2st_model.evaluating.method_table import ReadyMethod
from i2st_model.leaks import first_of
from i2st_model.records.episode_sets import EpisodeSet
from i2st_model.records.results import Result
from i2st_model.train_descriptors import centring_classes
from pipeline.manifests import spelling


def chosen_on_these(result: Result) -> list[str]:
    """Find evaluated classes whose accuracy has chosen the weights behind a result.

    Args:
        result: of an evaluation, here or in a file.

    Returns:
        Their names; none where that is not known.
    """
    training, episodes = result.made_by.training or {}, result.episodes
    chosen_on = training.get("chosen_on")
    if chosen_on is None and training.get("selected") == "val":
        # Runs from before it was kept know val classes that were given, else only their dataset.
        chosen_on = training.get("val_classes")
        if not chosen_on and training.get("dataset") == episodes.dataset:
            chosen_on = episodes.class_names if episodes.split == "val" else ()
    return _shared(episodes, chosen_on or ())


def choice_notes(results: Sequence[Result]) -> list[str]:
    """Say whose weights were chosen on classes of their evaluation.

    Args:
        results: of the evaluation.

    Returns:
        Sentences.
    """
    found = [(str(one.made_by.run), one.episodes, chosen_on_these(one)) for one in results]
    return _told(found, "their accuracy has chosen the weights")


def centring_notes(methods: Sequence[ReadyMethod], cells: Sequence[EpisodeSet]) -> list[str]:
    """Say which methods are centred on the mean of train videos of classes of their evaluation.

    Args:
        methods: that are evaluated.
        cells: sets of episodes.

    Returns:
        Sentences.
    """
    found = []
    for ready in methods:
        centred_on = centring_classes(ready.method, ready.store, ready.checkpoint)
        found += [(ready.label, cell, _shared(cell, centred_on)) for cell in cells]
    return _told(found, "the mean that is subtracted is that of their videos, too")


def _shared(episodes: EpisodeSet, classes: Iterable[str]) -> list[str]:
    spelled = {spelling(name) for name in classes}
    return [name for name in episodes.class_names if spelling(name) in spelled]


def _told(found: Iterable[tuple[str, EpisodeSet, Sequence[str]]], why: str) -> list[str]:
    """Sentences on methods or runs, one for all that have met the same classes."""
    names: dict[str, dict[str, None]] = {}
    for name, episodes, classes in found:
        if classes:
            what = f"{len(classes)} of these {len(episodes.class_names)} classes"
            names.setdefault(f"{what} ({first_of(classes)})", {})[name] = None
    return [f"{', '.join(own)}: optimistic on {what}: {why}" for what, own in names.items()]
