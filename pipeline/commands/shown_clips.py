"""The clips that `i2st show` paints, with a title and a subtitle: of a video, or of shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.commands.console import note, printable
from pipeline.errors import BackendError, ConfigError, VideoError


def clip_of_video(
    path: Path,
    *,
    class_name: str | None,
    dataset: str | None,
    edition: str | None,
    actor: str | None,
    objects: Sequence[str] | None,
    prompt_mode: str,
    segmenter: str,
    mask_files: Path | None,
    sam: str | None,
    clip: str | None,
    frames: int,
    device: str,
) -> tuple[str, str, list[Any]]:
    """Title, subtitle and the one clip of a contact sheet of a video."""
    from pipeline.devices import resolve_device
    from pipeline.manifests import Manifest, load_manifest
    from pipeline.manifests.schema import nouns
    from pipeline.manifests.types import ClassPrompts
    from pipeline.segmenters import get_segmenter
    from pipeline.showing import clips

    class_name = class_name or path.resolve().parent.name
    if dataset is None:
        manifest = Manifest(name="", title="", classes={"train": (class_name,)})
    else:
        manifest = load_manifest(dataset, edition=edition)
    options = {name: value for name, value in (("sam", sam), ("clip", clip)) if value is not None}
    device = resolve_device(device)
    try:
        built = get_segmenter(segmenter, device=device, masks=mask_files, **options)
    except BackendError as error:
        raise BackendError(str(error).replace("--segmenter none", "--no-masks")) from error
    prompts = ClassPrompts(
        actor=None if actor is None else nouns([actor], "--actor"),
        objects=nouns(objects, "--prompt") if objects else None,
    )
    try:
        shown = clips.clip_of_video(
            path,
            manifest,
            class_name,
            built,
            prompts=prompts,
            prompt_mode=prompt_mode,
            num_frames=frames,
        )
    except VideoError as error:
        # Of shards one video may be skipped; here nothing would be left to show.
        raise ConfigError(str(error)) from error
    return printable(path.name), f"segmenter: {segmenter}", [shown]


def clips_of_shards(
    path: Path,
    *,
    video_ids: Sequence[str],
    limit: int,
    view: str | None,
    dataset: str | None,
    edition: str | None,
    videos: Path | None,
    table: Path | None,
    data_root: Path,
    prompts: Path | None,
) -> tuple[str, str, list[Any]]:
    """Title, subtitle, and the clips and failures of a contact sheet of shards."""
    from pipeline.datasets import open_dataset
    from pipeline.manifests import Manifest, known_manifests, load_manifest
    from pipeline.prompt_tables import load_prompt_tables
    from pipeline.shards.reader import ShardReader
    from pipeline.showing import shards

    reader = ShardReader(path)
    index = reader.index
    if dataset is None and table is None and index.dataset_name in known_manifests():
        dataset = index.dataset_name
    source = None
    if index.stores != "frames":
        source = open_dataset(
            dataset=dataset, edition=edition, videos=videos, table=table, data_root=data_root
        )
    if dataset is None:
        classes = {split: tuple(names) for split, names in index.classes.items()}
        manifest = Manifest(name=index.dataset_name, title="", classes=classes)
        root = videos
    else:
        manifest = load_manifest(dataset, edition=edition)
        root = videos or data_root / manifest.folder
    tables = load_prompt_tables(manifest, root, user=prompts, video_ids=reader.video_ids)
    if reader.has_masks and shards.prompts_differ(index, manifest, tables):
        note(
            "the masks of these shards were made with other prompts than those shown; pass the "
            "same --prompts as to extract"
        )
    rows = shards.choose_rows(reader, video_ids, limit=limit, of_train=view is not None)
    found = list(
        shards.clips_of_shards(reader, rows, manifest, source, prompts=tables, view_name=view)
    )
    made_by = (index.fingerprint.get("segmenter") or {"name": "none"})["name"]
    subtitle = f"segmenter: {made_by}, {len(rows)} of {reader.num_videos} videos"
    subtitle += f", stored view {view}" if view else ""
    return printable(index.dataset_name), subtitle, found
