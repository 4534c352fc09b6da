"""Manifests of one's own videos: a folder with one sub-folder per class, or a table of videos."""

import hashlib
from pathlib import Path

from pipeline.errors import ManifestError
from pipeline.manifests.paths import check_name
from pipeline.manifests.scan import resolve_root, scan_clips, scan_folders
from pipeline.manifests.tables import manifest_from_table
from pipeline.manifests.text import read_yaml
from pipeline.manifests.types import SPLITS, Manifest
from pipeline.nearest_names import did_you_mean

__all__ = ["manifest_from_folder", "manifest_from_table"]


def manifest_from_folder(
    root: Path,
    *,
    seed: int = 0,
    split_file: Path | None = None,
    ratios: tuple[float, float, float] = (0.6, 0.2, 0.2),
) -> Manifest:
    """Manifest of a folder that holds one sub-folder of clips per class.

    Args:
        root: the videos root.
        seed: draws which classes go where; the same seed and classes give the same splits
            on every machine.
        split_file: YAML or JSON ``{train: [...], val: [...], test: [...]}`` in place of a draw;
            classes that it does not name are left out.
        ratios: shares of train, val and test among the classes; each split gets at least one class.

    Returns:
        A manifest with the folder's name.

    Raises:
        ManifestError: there are too few classes, or the split file does not fit them.
    """
    real_root = resolve_root(root, needed="<class>/<clip>")
    names = [
        check_name(name, what="class folder")
        for name, path in scan_folders(real_root)
        if next(scan_clips(real_root, path), None)
    ]
    if split_file is not None:
        classes = _given_split(split_file, names, root)
    else:
        classes = _drawn_split(names, seed, ratios, root)
    name = check_name(real_root.name or "videos", what="videos folder")
    return Manifest(name=name, title=f"videos in {name}", classes=classes, folder=name)


def _drawn_split(
    names: list[str], seed: int, ratios: tuple[float, float, float], root: Path
) -> dict[str, tuple[str, ...]]:
    if len(ratios) != 3 or min(ratios) <= 0:
        raise ValueError(f"ratios {ratios} must be three positive numbers")
    if len(names) < 3:
        raise ManifestError(
            f"{root} holds clips of {len(names)} classes; train, val and test need one each, so 3; "
            "add folders, one per class"
        )
    # Ordered by hash, not by a generator: the draw cannot change with a library's version.
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    num_val = max(1, round(len(names) * ratios[1] / sum(ratios)))
    num_test = max(1, round(len(names) * ratios[2] / sum(ratios)))
    num_val = min(num_val, len(names) - 2)
    num_test = min(num_test, len(names) - num_val - 1)
    parts = (order[num_val + num_test :], order[:num_val], order[num_val : num_val + num_test])
    return {split: tuple(sorted(part)) for split, part in zip(SPLITS, parts, strict=True)}


def _given_split(path: Path, names: list[str], root: Path) -> dict[str, tuple[str, ...]]:
    raw = read_yaml(path)
    if not isinstance(raw, dict) or not set(raw) <= set(SPLITS) or not raw:
        raise ManifestError(
            f"{path} is no mapping of train, val and test to class names; write it so"
        )
    splits: dict[str, str] = {}
    for split in SPLITS:
        listed = raw.get(split) or []
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise ManifestError(f"{path}: {split} is no list of class names; write it so, quoted")
        for name in listed:
            if name not in names:
                raise ManifestError(
                    f"{path}: {split} names class {name!a:.80}, no folder with clips in {root}"
                    f"{did_you_mean(name, names)}; correct it"
                )
            if name in splits:
                raise ManifestError(
                    f"{path}: class {name!a} is in {splits[name]} and {split}; "
                    "once is needed; remove one"
                )
            splits[name] = split
    return {s: tuple(sorted(c for c in splits if splits[c] == s)) for s in SPLITS}
