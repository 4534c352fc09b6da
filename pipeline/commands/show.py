"""`i2st show`: a picture of a video, or of some videos of shards, with masks."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.console import (
    EXIT_SOME_SKIPPED,
    failure_line,
    note,
    printable,
    show_json,
)
from pipeline.commands.options import (
    ClipWeights,
    DataRoot,
    DatasetName,
    Device,
    Edition,
    Json,
    PromptFile,
    PromptMode,
    SamWeights,
    SegmenterName,
    TableFile,
    VideosFolder,
    refuse_typed,
)
from pipeline.commands.shown_clips import clip_of_video, clips_of_shards
from pipeline.errors import ConfigError

LONGEST_ID = 100
"""Letters of a video id in the name of a picture; file systems take 255 bytes."""


def show(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="A video, a folder of its frames, or of shards.")],
    masks: Annotated[bool, typer.Option("--masks/--no-masks", help="Paint the masks.")] = True,
    out: Annotated[
        Path | None, typer.Option(help="Picture to write.  [default: a new masks-NAME.png]")
    ] = None,
    class_name: Annotated[
        str | None, typer.Option("--class", help="What a video shows.  [default: its folder]")
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(metavar="<str>", help="Object to look for in a video; up to 3."),
    ] = None,
    actor: Annotated[
        str | None, typer.Option(help="Who acts in a video.  [default: person]")
    ] = None,
    prompt_mode: PromptMode = "nouns",
    segmenter: SegmenterName = "sam_clip",
    mask_files: Annotated[
        Path | None, typer.Option(help="Mask files of a video, for precomputed.")
    ] = None,
    sam: SamWeights = None,
    clip: ClipWeights = None,
    frames: Annotated[int, typer.Option(help="Frames of a video.")] = 8,
    device: Device = "auto",
    video: Annotated[
        list[str] | None, typer.Option(metavar="<str>", help="Id of a video of shards; repeat.")
    ] = None,
    limit: Annotated[
        int,
        typer.Option(min=1, metavar="<int>", help="Videos of shards, in turn from every class."),
    ] = 6,
    view: Annotated[
        str | None, typer.Option(help="Stored view of the shards' train videos.")
    ] = None,
    dataset: DatasetName = None,
    videos: VideosFolder = None,
    table: TableFile = None,
    data_root: DataRoot = Path("data"),
    edition: Edition = None,
    prompts: PromptFile = None,
    as_json: Json = False,
) -> None:
    """A picture of frames with masks, prompts and scores.

    The frames are those of a video, or of some videos of shards.
    """
    from pipeline.shards.records import Failure
    from pipeline.showing.contact_sheet import contact_sheet, save_sheet

    if not path.exists():
        raise ConfigError(
            f"{printable(str(path))} is absent; a video, a folder of its frames or a folder of "
            "shards was needed; correct PATH"
        )
    of_videos = "class_name prompt actor prompt_mode segmenter mask_files sam clip frames device"
    of_shards = "video limit view videos table data_root prompts"
    is_shards = any(path.glob("shard-*")) or (path / "index.json").is_file()
    if is_shards:
        refuse_typed(ctx, of_videos, "shards")
        title, subtitle, found = clips_of_shards(
            path,
            video_ids=video or (),
            limit=limit,
            view=view,
            dataset=dataset,
            edition=edition,
            videos=videos,
            table=table,
            data_root=data_root,
            prompts=prompts,
        )
    else:
        refuse_typed(ctx, of_shards, "a video")
        title, subtitle, found = clip_of_video(
            path,
            class_name=class_name,
            dataset=dataset,
            edition=edition,
            actor=actor,
            objects=prompt,
            prompt_mode=prompt_mode,
            segmenter=segmenter if masks else "none",
            mask_files=mask_files,
            sam=sam,
            clip=clip,
            frames=frames,
            device=device,
        )
    clips = [one for one in found if not isinstance(one, Failure)]
    failures = [one for one in found if isinstance(one, Failure)]
    for failure in failures:
        note(failure_line(failure))
    if not clips:
        raise ConfigError(f"{path}: 0 clips to show; at least 1 was needed; see the lines above")
    target = out or _new_picture(path.resolve().stem, video or ())
    if masks:
        _note_without_masks(clips)
    else:
        clips = [replace(one, masks=None) for one in clips]
    subtitle += "; below each frame its number, and the score of each mask" if masks else ""
    save_sheet(contact_sheet(clips, title=title, subtitle=subtitle), target)
    if as_json:
        told = [one.to_json() for one in clips]
        show_json({"out": str(target), "clips": told})
    else:
        typer.echo(str(target))
    if failures:
        raise typer.Exit(EXIT_SOME_SKIPPED)


def _new_picture(name: str, video_ids: Sequence[str]) -> Path:
    """Name a picture after what it shows; none that is there is replaced."""
    if len(video_ids) == 1:
        name += "-" + printable(video_ids[0]).replace("/", "-")[:LONGEST_ID]
    first = Path(f"masks-{name}.png")
    others = (first.with_name(f"masks-{name}-{number}.png") for number in count(2))
    return next(file for file in chain([first], others) if not file.exists())


def _note_without_masks(clips: Sequence[Any]) -> None:
    outside = [one for one in clips if one.of_other_split]
    if outside:
        splits = ", ".join(sorted({one.split for one in outside}))
        note(
            f"{len(outside)} of {len(clips)} videos shown are outside train ({splits}) and have no "
            "masks: those are made with the class known, so of train videos alone"
        )
