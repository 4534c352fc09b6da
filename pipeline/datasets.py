"""The videos that a command is about: a shipped dataset, a folder of one's own, or a table."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ConfigError, ManifestError
from pipeline.manifests import Manifest, Video, find_videos, known_manifests, load_manifest
from pipeline.manifests.check import CheckReport, check_videos
from pipeline.manifests.sources import manifest_from_folder, manifest_from_table


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A manifest and those of its videos that are on disk."""

    manifest: Manifest
    root: Path
    """Folder that the videos' paths are relative to."""
    videos: tuple[Video, ...]
    """Sorted by video_id."""

    @property
    def missing_classes(self) -> tuple[str, ...]:
        """Classes of the manifest without a video on disk."""
        present = {video.class_name for video in self.videos}
        return tuple(name for name in self.manifest.class_names if name not in present)


def open_dataset(
    *,
    dataset: str | None = None,
    edition: str | None = None,
    videos: Path | None = None,
    table: Path | None = None,
    data_root: Path = Path("data"),
    split_file: Path | None = None,
    split_seed: int = 0,
) -> Dataset:
    """Find the videos of a shipped dataset, of a folder, or of a table.

    Args:
        dataset: name of a shipped manifest; its videos are looked for in ``videos``, or else in
            ``data_root/<folder of the manifest>``.
        edition: which published list chooses the videos, for datasets that have several.
        videos: folder with one folder per class; with ``table``, what its paths are relative to.
        table: CSV or JSONL with columns path, class, split and, optionally, group.
        data_root: folder of the datasets.
        split_file: YAML or JSON with the classes of each split, for a folder without a manifest.
        split_seed: draws the splits of a folder without a manifest or split file.

    Returns:
        The manifest and the videos that are there.

    Raises:
        ConfigError: none or both of ``dataset`` and a source of one's own are given, or an
            argument that belongs to the other.
        ManifestError: the videos cannot be found, or none is there.
    """
    if table is not None and dataset:
        raise ConfigError(f"both --dataset {dataset} and --table {table}; one was needed; drop one")
    if split_file is not None and (dataset or table is not None):
        raise ConfigError(
            f"--split-file {split_file} beside a dataset or table, which has splits of its own; it "
            "is for a folder of classes; drop it"
        )
    if edition is not None and not dataset:
        raise ConfigError(f"--edition {edition} of no dataset; one was needed; add --dataset NAME")
    if table is not None:
        manifest, listed = manifest_from_table(table, root=videos)
        root = videos or table.parent
        return _present(manifest, root, listed if _any_exists(root, listed) else [])
    if dataset:
        manifest = load_manifest(dataset, edition=edition)
        root = videos or data_root / manifest.folder
        return _present(manifest, root, find_videos(manifest, root))
    if videos is None:
        raise ConfigError(
            "no videos named; pass --dataset NAME (`i2st manifest list` shows them), --videos DIR "
            "with one folder per class, or --table FILE"
        )
    manifest = manifest_from_folder(videos, seed=split_seed, split_file=split_file)
    return _present(manifest, videos, find_videos(manifest, videos))


def _any_exists(root: Path, videos: list[Video]) -> bool:
    return any((root / video.path).exists() for video in videos)


def _present(manifest: Manifest, root: Path, videos: list[Video]) -> Dataset:
    if not videos:
        layout = "a path of the table" if manifest.videos_sha256 else manifest.layout
        raise ManifestError(
            f"{root} holds no video of {manifest.name}; {layout} was needed; "
            "put the videos there, or name their folder with --videos"
        )
    return Dataset(manifest=manifest, root=root, videos=tuple(videos))


def check_dataset(
    folder: Path, *, dataset: str | None, table: Path | None = None, edition: str | None = None
) -> CheckReport:
    """Compare a folder of videos with a shipped dataset or a table.

    Args:
        folder: of the videos.
        dataset: name of a shipped manifest; the folder's own name unless given.
        table: CSV or JSONL, in place of a dataset.
        edition: which published list chooses the videos.

    Returns:
        Counts per split and class, and what is missing or extra.

    Raises:
        ConfigError: no dataset is given and the folder's name is none.
        ManifestError: dataset, table or folder is absent or malformed.
    """
    if table is not None:
        manifest, videos = manifest_from_table(table, root=folder)
        return check_videos(manifest, folder, videos)
    name = dataset or folder.resolve().name
    if dataset is None and name not in known_manifests():
        raise ConfigError(
            f"folder {name!a} is not named like a dataset; its dataset was needed; pass --dataset "
            f"with one of {', '.join(known_manifests())}, or --table FILE"
        )
    return check_videos(load_manifest(name, edition=edition), folder)
