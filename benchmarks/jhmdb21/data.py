"""The data of the benchmark: splits by class, and shards in several forms."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TEST_CLASSES = 5
FOLDS_OF_AN_ORDER, ORDERS = 3, 2
INNER_FOLDS = 2

SHARDS: dict[str, dict[str, Any]] = {
    "base": {"masks": "masks"},
    "deeplab": {"masks": "masks_deeplab"},
    "centre": {"segmenter": "center_prior"},
    "views": {"masks": "masks", "views": ("flip", "shift", "scale")},
    "frames16": {"masks": "masks", "frames": 16},
    "lite2": {"masks": "masks", "encoder": "efficientnet-lite2"},
    "grid14": {"masks": "masks", "encoder": "efficientnet-lite0:448"},
}
"""Settings of the extraction; `masks` is a folder of the data."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """Classes that are trained on and, disjoint from them, evaluated."""

    name: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    order: int = 0
    """Splits of one order share no test class."""


def read_classes(data: Path) -> dict[str, list[str]]:
    """Return split -> sorted classes."""
    classes: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for clip in _clips(data):
        classes[clip["split"]].add(clip["class"])
    return {split: sorted(names) for split, names in classes.items()}


def outer_splits(classes: dict[str, list[str]]) -> list[Split]:
    """Return the fixed split and the folds of the train and val classes."""
    both = sorted(classes["train"] + classes["val"])
    fixed = Split(name="fixed", train=tuple(classes["train"]), test=tuple(classes["test"]))
    return [fixed, *folds_of(both, "fold", ORDERS, FOLDS_OF_AN_ORDER)]


def inner_splits(split: Split) -> list[Split]:
    """Return folds of a split's train classes, on which candidates are compared."""
    return folds_of(split.train, f"{split.name}.inner", 1, INNER_FOLDS)


def folds_of(classes: Sequence[str], name: str, orders: int, folds: int) -> list[Split]:
    """Return ``folds`` disjoint sets of test classes out of each of ``orders`` random orders."""
    found = []
    for seed in range(orders):
        order = np.random.default_rng(seed).permutation(np.array(sorted(classes))).tolist()
        for fold in range(folds):
            test = order[fold * TEST_CLASSES : (fold + 1) * TEST_CLASSES]
            train = sorted(set(order) - set(test))
            number = seed * folds + fold
            found.append(
                Split(
                    name=name + str(number),
                    train=tuple(train),
                    test=tuple(sorted(test)),
                    order=seed,
                )
            )
    return found


def extract_shards(name: str, data: Path, out: Path) -> str | None:
    """Extract one form of the data, where that has not been done; return their digest."""
    from pipeline.datasets import open_dataset
    from pipeline.extract import extract
    from pipeline.extraction.plan import ExtractConfig

    out.mkdir(parents=True, exist_ok=True)
    source = open_dataset(table=_write_table(data, out), videos=data / "videos")
    basis = {"encoder": "efficientnet-lite0", "segmenter": "precomputed"}
    settings = {**basis, **SHARDS[name]}
    if "masks" in settings:
        settings["masks"] = data / settings["masks"]
    config = ExtractConfig(
        dataset="jhmdb21", videos=source.root, out=out / "shards" / name, **settings
    )
    return extract(config, source.manifest, source.videos).digest


def _write_table(data: Path, out: Path) -> Path:
    """Write the table of videos; val classes become train ones, so that folds have their masks."""
    table = out / "jhmdb21.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "class", "split", "group"))
        for clip in _clips(data):
            split = "test" if clip["split"] == "test" else "train"
            path = f"{clip['class']}/{clip['clip']}.avi"
            writer.writerow((path, clip["class"], split, clip["source_group"]))
    return table


def _clips(data: Path) -> list[dict[str, str]]:
    with open(data / "clips.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
