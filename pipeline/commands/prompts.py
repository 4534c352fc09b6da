"""`i2st prompts`: what the segmenter is asked to find."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.console import note, show_json, show_table
from pipeline.commands.options import (
    DataRoot,
    Edition,
    Json,
    PromptFile,
    PromptMode,
    TableFile,
    VideosFolder,
)
from pipeline.errors import ConfigError


def prompts_show(
    dataset: Annotated[
        str | None, typer.Argument(help="A shipped dataset; none for --videos or --table.")
    ] = None,
    videos: VideosFolder = None,
    table: TableFile = None,
    data_root: DataRoot = Path("data"),
    edition: Edition = None,
    prompts: PromptFile = None,
    prompt_mode: PromptMode = "nouns",
    video: Annotated[
        list[str] | None,
        typer.Option(metavar="<str>", help="A video's id, for its own prompts; repeat."),
    ] = None,
    as_json: Json = False,
) -> None:
    """What the segmenter is asked to find, and which source says so.

    Class by class, or for the videos that are named.
    """
    from pipeline.datasets import open_dataset
    from pipeline.manifests import find_videos, load_manifest
    from pipeline.prompt_tables import load_prompt_tables, named_video
    from pipeline.prompts import class_prompt_sets, prompts_for

    if dataset is not None and table is None:
        manifest = load_manifest(dataset, edition=edition)
        root = videos or data_root / manifest.folder
        known = find_videos(manifest, root) if prompts and root.is_dir() else []
    elif dataset is None and videos is None and table is None:
        raise ConfigError(
            "no dataset named; pass one (`i2st manifest list` shows them), --videos DIR with one "
            "folder per class, or --table FILE"
        )
    else:
        source = open_dataset(dataset=dataset, edition=edition, videos=videos, table=table)
        manifest, root, known = source.manifest, source.root, list(source.videos)
    known += [named_video(manifest, root, one) for one in video or ()]
    ids = [one.video_id for one in known]
    tables = load_prompt_tables(manifest, root, user=prompts, video_ids=ids)
    if video:
        chosen = known[-len(video) :]
        sets = [
            replace(prompts_for(manifest, v, user_table=tables, mode=prompt_mode), key=v.video_id)
            for v in chosen
        ]
    else:
        sets = class_prompt_sets(manifest, user_table=tables, mode=prompt_mode)
        if any(one.objects is None for one in manifest.prompts.values()):
            note(f"objects of {manifest.name} differ from video to video; --video ID shows one's")
    if as_json:
        show_json([asdict(one) for one in sets])
        return
    rows = [(s.key, ", ".join(s.actor[:1]), ", ".join(s.objects), s.source) for s in sets]
    show_table(rows, ("video" if video else "class", "actor", "objects", "source"))
