"""`i2st masks`: how good a segmenter's masks are."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands.console import (
    EXIT_SOME_SKIPPED,
    failure_line,
    note,
    show_json,
    show_table,
)
from pipeline.commands.options import (
    ClipWeights,
    DataRoot,
    DatasetName,
    Device,
    Edition,
    Json,
    MaskFiles,
    PromptFile,
    PromptMode,
    SamWeights,
    SegmenterName,
    TableFile,
    VideosFolder,
)
from pipeline.commands.progress import progress
from pipeline.errors import ConfigError


def masks_score(
    truth: Annotated[Path, typer.Option(help="Folder of true person masks, as `precomputed`.")],
    dataset: DatasetName = None,
    videos: VideosFolder = None,
    table: TableFile = None,
    data_root: DataRoot = Path("data"),
    edition: Edition = None,
    segmenter: SegmenterName = "sam_clip",
    masks: MaskFiles = None,
    sam: SamWeights = None,
    clip: ClipWeights = None,
    prompts: PromptFile = None,
    prompt_mode: PromptMode = "nouns",
    frames: Annotated[int, typer.Option(help="Frames per video.")] = 8,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="<int>", help="At most this many videos, in turn from every class."
        ),
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also class by class.")] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """A segmenter's actor masks against true masks, beside controls.

    The true masks are of persons, on train videos.
    """
    from pipeline.datasets import open_dataset
    from pipeline.devices import resolve_device
    from pipeline.prompt_tables import load_prompt_tables
    from pipeline.prompted_clips import prompted_clips
    from pipeline.scoring.score_rows import ALL_CLASSES
    from pipeline.scoring.segmenter_scores import open_truth, score_segmenter, videos_with_truth
    from pipeline.segmenters import get_segmenter

    source = open_dataset(
        dataset=dataset, edition=edition, videos=videos, table=table, data_root=data_root
    )
    truth_masks = open_truth(truth)
    chosen = videos_with_truth(source.videos, truth_masks, limit=limit)
    options = {name: value for name, value in (("sam", sam), ("clip", clip)) if value is not None}
    scored = get_segmenter(segmenter, device=resolve_device(device), masks=masks, **options)
    if scored is None:
        raise ConfigError(
            "--segmenter none makes no masks; one that does was needed; pass e.g. center_prior"
        )
    ids = [video.video_id for video in source.videos]
    clips = prompted_clips(
        source.manifest,
        chosen,
        source.root,
        num_frames=frames,
        prompts=load_prompt_tables(source.manifest, source.root, user=prompts, video_ids=ids),
        prompt_mode=prompt_mode,
    )
    with progress("videos") as show:
        found = score_segmenter(
            scored, truth_masks, clips, on_progress=lambda done: show(done, len(chosen), "")
        )
    for failure in found.failures:
        note(failure_line(failure))
    if as_json:
        show_json(found.to_json())
    else:
        rows = [row for row in found.rows if per_class or row.class_name == ALL_CLASSES]
        measures = list(rows[0].scores)
        show_table(
            [
                (
                    row.masks,
                    row.class_name or "all",
                    row.num_frames,
                    *(f"{row.scores[name]:.3f}" for name in measures),
                    None if row.iou_half_width is None else f"{row.iou_half_width:.3f}",
                )
                for row in rows
            ],
            ("masks", "class", "frames", *measures, "iou +/-"),
        )
        typer.echo(
            f"means over frames with a true mask, of {found.num_videos} train videos; "
            "+/- is the 95 % half-width over source videos"
        )
    if found.failures:
        raise typer.Exit(EXIT_SOME_SKIPPED)
