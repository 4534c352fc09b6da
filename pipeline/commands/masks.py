"""`i2st masks`: how good a segmenter's masks are."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.console import (
    EXIT_SOME_SKIPPED,
    failure_line,
    note,
    say,
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

TITLES = {
    "soft_iou_14": "IoU 14",
    "soft_iou_7": "IoU 7",
    "pointing": "pointing",
    "p_50": "> 0.5",
    "found": "found",
}
"""What stands above the columns of `pipeline.scoring.mask_scores.MEASURES`, all but the IoU."""


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
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Also the IoU class by class.")
    ] = False,
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
        _show(found, per_class)
    if found.failures:
        raise typer.Exit(EXIT_SOME_SKIPPED)


def _show(found: Any, per_class: bool) -> None:
    """Print every measure over all classes, and on demand the IoU class by class."""
    from pipeline.scoring.score_rows import ALL_CLASSES

    tables: dict[str, list[Any]] = {}
    for row in found.rows:
        tables.setdefault(row.class_name, []).append(row)
    overall = tables.pop(ALL_CLASSES)
    rows = [
        (row.masks, row.num_frames, _word(row.scores["iou"]), _word(row.iou_half_width))
        + tuple(_word(row.scores[name]) for name in TITLES)
        for row in overall
    ]
    show_table(rows, ("masks", "frames", "IoU", "+/-", *TITLES.values()))
    if per_class:
        typer.echo()
        of_classes = [
            (name, _word(own[0].scores["iou"]), _word(own[0].iou_half_width))
            + tuple(_word(row.scores["iou"]) for row in own[1:])
            for name, own in tables.items()
        ]
        first, *controls = (row.masks for row in overall)
        show_table(of_classes, ("IoU by class", first, "+/-", *controls))
    say(
        f"means over frames with a true mask, of {found.num_videos} train videos; "
        "+/- is the 95 % half-width over source videos"
    )


def _word(share: float | None) -> str:
    return "-" if share is None else f"{share:.3f}"
