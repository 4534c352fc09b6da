"""Which videos of a dataset lie below a folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

from pipeline.errors import ManifestError
from pipeline.manifests.lists import read_imported
from pipeline.manifests.paths import check_relative
from pipeline.manifests.scan import resolve_root, scan_clips, scan_folders
from pipeline.manifests.types import Manifest, Video, spelling


def find_videos(manifest: Manifest, root: Path) -> list[Video]:
    """Videos of the dataset that lie below ``root``, sorted by id; what is missing is left out.

    A clip is a file with a video suffix or a folder of JPEG/PNG frames. Class folders may be
    spelled with other case, spaces, underscores or CamelCase than the manifest has.

    Args:
        manifest: the dataset.
        root: the videos root; may itself be a link, but nothing below it may lead out of it.

    Returns:
        Videos with paths below ``root``; their group is read off the name where possible.

    Raises:
        ManifestError: the root or an imported list is absent, a name or link is unsafe, or two
            files are one clip.
    """
    real_root = resolve_root(root, needed=manifest.layout)
    if manifest.edition:
        found = _listed_videos(manifest, real_root, read_imported(manifest, root))
    else:
        found = _all_videos(manifest, real_root)
    videos: dict[str, Video] = {}
    for video in found:
        if video.video_id in videos:
            raise ManifestError(
                f"{video.path!a} and {videos[video.video_id].path!a} are one clip, "
                f"{video.video_id!a}; one file per clip is needed; move one away"
            )
        videos[video.video_id] = video
    return sorted(videos.values(), key=lambda video: video.video_id)


def class_of_folder(manifest: Manifest) -> Callable[[str], str | None]:
    """Function from a folder's name to the class that it holds, None where it holds none."""
    exact = {**{name: name for name in manifest.class_names}, **manifest.aliases}
    loose: dict[str, str | None] = {}
    for folder, name in exact.items():
        key = spelling(folder)
        # Two classes that share a spelling are told apart by their exact names only.
        loose[key] = name if loose.get(key, name) == name else None

    def find(folder: str) -> str | None:
        return exact.get(folder) or loose.get(spelling(folder))

    return find


def class_folders(manifest: Manifest, real_root: Path) -> Iterator[tuple[str, str]]:
    """Class name and path below the root of each folder that holds videos of a class.

    Args:
        manifest: the dataset.
        real_root: the videos root with its links resolved.

    Yields:
        tuple[str, str]: Class name, and POSIX path below the root.

    Raises:
        ManifestError: a folder is a link that leaves the root, or cannot be read.
    """
    find = class_of_folder(manifest)
    places = ["", *(name for name in manifest.subfolders if (real_root / name).is_dir())]
    for below in places:
        for folder, path in scan_folders(real_root, below):
            class_name = find(folder)
            if class_name is not None and path not in manifest.subfolders:
                yield class_name, path


def _all_videos(manifest: Manifest, real_root: Path) -> Iterator[Video]:
    splits = {name: split for split, names in manifest.classes.items() for name in names}
    for class_name, folder in class_folders(manifest, real_root):
        for clip, path in scan_clips(real_root, folder):
            yield Video(
                video_id=check_relative(f"{class_name}/{clip}", what="video id", max_bytes=255),
                path=path,
                class_name=class_name,
                split=splits[class_name],
                group=manifest.group_of(clip, class_name),
            )


def _listed_videos(
    manifest: Manifest, real_root: Path, chosen: dict[str, tuple[str, str]]
) -> Iterator[Video]:
    exact, by_group = _index(manifest, real_root, chosen)
    for video_id, (class_name, split) in chosen.items():
        group = manifest.group_of(video_id, class_name)
        folder = class_name if "<class>" in manifest.layout else ""
        path = exact.get((folder, video_id)) or by_group.get((folder, group))
        if path is not None:
            yield Video(
                video_id=video_id, path=path, class_name=class_name, split=split, group=group
            )


_Index = dict[tuple[str, str], str]


def _index(
    manifest: Manifest, real_root: Path, chosen: dict[str, tuple[str, str]]
) -> tuple[_Index, _Index]:
    """Paths by (class, clip) and, where file names vary, by (class, group); the first wins."""
    exact: _Index = {}
    by_group: _Index = {}
    if "<class>" in manifest.layout:
        folders = list(class_folders(manifest, real_root))
        only = None
    else:
        folders = [
            ("", below) for below in ("", *manifest.subfolders) if (real_root / below).is_dir()
        ]
        only = chosen
    for class_name, folder in folders:
        for clip, path in sorted(scan_clips(real_root, folder, only=only)):
            exact.setdefault((class_name, clip), path)
            if manifest.match_by_group and (group := manifest.group_of(clip, class_name)):
                by_group.setdefault((class_name, group), path)
    return exact, by_group
