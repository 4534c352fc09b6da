"""`i2st extract`: its flags, and the settings that they make."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.console import show_settings
from pipeline.commands.extraction_report import note_missing, run_extraction, show_estimate
from pipeline.commands.options import (
    DataRoot,
    DatasetName,
    Device,
    Edition,
    Json,
    MaskFiles,
    PromptMode,
    SplitFile,
    SplitSeed,
    TableFile,
    VideosFolder,
    refuse_typed,
    typed_names,
)
from pipeline.errors import ConfigError


def extract(
    ctx: typer.Context,
    dataset: DatasetName = None,
    videos: VideosFolder = None,
    table: TableFile = None,
    data_root: DataRoot = Path("data"),
    edition: Edition = None,
    split_file: SplitFile = None,
    split_seed: SplitSeed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the shards.  [default: shards/NAME]")
    ] = None,
    store: Annotated[
        str, typer.Option(help="features, or frames: pictures for training an encoder.")
    ] = "features",
    frame_side: Annotated[
        int, typer.Option(help="Longest short side of a stored frame, for --store frames.")
    ] = 256,
    encoder: Annotated[
        str, typer.Option(help="open_clip:MODEL/TAG, timm:NAME, efficientnet-lite0 or -lite2.")
    ] = "open_clip:ViT-B-16-quickgelu/openai",
    weights: Annotated[Path | None, typer.Option(help="Weight file of the encoder.")] = None,
    grid: Annotated[
        int | None, typer.Option(help="Cells per side of the token grid.  [default: encoder's]")
    ] = None,
    geometry: Annotated[str, typer.Option(help="center_crop or full_frame.")] = "center_crop",
    view_words: Annotated[
        str | None,
        typer.Option("--views", help="Views stored for training: some of flip,shift,scale."),
    ] = None,
    segmenter: Annotated[
        str,
        typer.Option(
            help="sam_clip, sam3, grounding_dino_sam, precomputed, center_prior or none, some "
            "with :MODEL."
        ),
    ] = "sam_clip",
    sam: Annotated[
        str | None, typer.Option(help="SAM of sam_clip: vit_b, vit_l, vit_h or a file.")
    ] = None,
    clip: Annotated[
        str | None, typer.Option(help="CLIP of sam_clip: MODEL/TAG of open_clip.")
    ] = None,
    segmenter_option: Annotated[
        list[str] | None,
        typer.Option(help="Any other setting of the segmenter: name=value; repeat."),
    ] = None,
    masks: MaskFiles = None,
    prompts: Annotated[Path | None, typer.Option(help="YAML of your own prompts.")] = None,
    prompt_mode: PromptMode = "nouns",
    frames: Annotated[int, typer.Option(help="Frames stored per video.")] = 8,
    frame_rule: Annotated[
        str, typer.Option(help="segment_centres or uniform_endpoints.")
    ] = "segment_centres",
    decoder: Annotated[str, typer.Option(help="pyav or decord.")] = "pyav",
    check_decoder: Annotated[
        int, typer.Option(help="Compare this many videos with the other decoder first.")
    ] = 0,
    min_decoded_ratio: Annotated[
        float, typer.Option(help="Refuse a file of which less decodes.")
    ] = 0.95,
    decode_timeout: Annotated[float, typer.Option(help="Seconds per video.")] = 60.0,
    workers: Annotated[
        int,
        typer.Option(help="Processes, one per GPU; with --slurm jobs. 0 works in this process."),
    ] = 0,
    hands: Annotated[
        int | None,
        typer.Option(help="Portions a worker has in hand.  [default: its processors, and 1]"),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Work on this dask scheduler: tls://HOST:PORT, or tcp://127.0.0.1:PORT."),
    ] = None,
    tls_ca: Annotated[Path | None, typer.Option(help="For tls://: the authority's file.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="For tls://: the certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="For tls://: its key.")] = None,
    use_slurm: Annotated[
        bool, typer.Option("--slurm", help="Work in SLURM jobs, as many as --workers.")
    ] = False,
    slurm_partition: Annotated[str | None, typer.Option(help="Of the jobs.")] = None,
    slurm_account: Annotated[str | None, typer.Option(help="Of the jobs.")] = None,
    slurm_cores: Annotated[int, typer.Option(help="Processors of a job.")] = 4,
    slurm_gpus: Annotated[int, typer.Option(help="GPUs of a job.")] = 0,
    slurm_memory: Annotated[str, typer.Option(help="Memory of a job.")] = "16GiB",
    slurm_walltime: Annotated[str, typer.Option(help="Longest time of a job.")] = "24:00:00",
    slurm_interface: Annotated[
        str | None, typer.Option(help="Network interface that reaches the nodes, e.g. ib0.")
    ] = None,
    slurm_option: Annotated[
        list[str] | None, typer.Option(help="Further directive, e.g. --constraint=a100; repeat.")
    ] = None,
    batch_frames: Annotated[int, typer.Option(help="Frames per encoder call.")] = 64,
    shard_videos: Annotated[int, typer.Option(help="Videos per shard.")] = 64,
    limit: Annotated[
        int | None, typer.Option(help="At most this many videos, in turn from every class.")
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try failed videos again.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say how much is left, from a probe; write nothing.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stage one: decode, encode and segment videos once, into shards. Run again, it goes on."""
    from pipeline.datasets import open_dataset
    from pipeline.extraction.config import ExtractConfig
    from pipeline.prompt_tables import load_prompt_tables
    from pipeline.scheduling import SlurmSettings

    if not use_slurm:
        _refuse_flags_of_jobs(ctx)
    drawn = dataset is None and table is None and split_file is None
    for is_so, what, idle in (
        (store == "frames", "--store frames", "encoder weights grid geometry"),
        (store == "features", "--store features", "frame_side"),
        (segmenter == "none", "--segmenter none", "prompts prompt_mode"),
        (videos is not None, "--videos", "data_root"),
        (table is not None, "--table", "data_root"),
        (not drawn, "splits that are given", "split_seed"),
        (dry_run, "--dry-run", "check_decoder"),
    ):
        if is_so:
            refuse_typed(ctx, idle, what)
    source = open_dataset(
        dataset=dataset,
        edition=edition,
        videos=videos,
        table=table,
        data_root=data_root,
        split_file=split_file,
        split_seed=split_seed,
    )
    name = source.manifest.name
    slurm = SlurmSettings(
        workers=max(1, workers),
        cores=slurm_cores,
        memory=slurm_memory,
        walltime=slurm_walltime,
        gpus=slurm_gpus,
        partition=slurm_partition,
        account=slurm_account,
        options=tuple(slurm_option or ()),
        interface=slurm_interface,
    )
    config = ExtractConfig(
        dataset=name,
        videos=source.root,
        out=out or Path("shards") / name,
        store=store,
        frame_side=frame_side,
        encoder=encoder,
        weights=weights,
        grid=grid,
        geometry=geometry,
        views=tuple(word.strip() for word in view_words.split(",")) if view_words else (),
        segmenter=segmenter,
        segmenter_options=_segmenter_options(sam, clip, segmenter_option),
        masks=masks,
        prompt_mode=prompt_mode,
        frames=frames,
        frame_rule=frame_rule,
        decoder=decoder,
        check_decoder=check_decoder,
        min_decoded_ratio=min_decoded_ratio,
        decode_timeout_seconds=decode_timeout,
        workers=0 if use_slurm else workers,
        hands=hands,
        scheduler=scheduler,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        slurm=slurm if use_slurm else None,
        batch_frames=batch_frames,
        shard_videos=shard_videos,
        limit=limit,
        retry_failed=retry_failed,
        device=device,
    )
    beside = {
        "edition": source.manifest.edition or None,
        "prompts": prompts,
        "split_file": split_file,
        "split_seed": split_seed if drawn else None,
    }
    used = {field: value for field, value in asdict(config).items() if value not in ({}, ())}
    show_settings({**used, **beside})
    note_missing(source)
    ids = [video.video_id for video in source.videos]
    user_prompts = load_prompt_tables(source.manifest, source.root, user=prompts, video_ids=ids)
    if dry_run:
        show_estimate(config, source, user_prompts, as_json)
        return
    run_extraction(config, source, user_prompts, as_json)


def _refuse_flags_of_jobs(ctx: typer.Context) -> None:
    """Refuse flags of SLURM jobs where none is asked for."""
    for name, flag in typed_names(ctx).items():
        if name.startswith("slurm_"):
            raise ConfigError(
                f"{flag} without --slurm would work on this machine; needed: both or neither; add "
                f"--slurm, or drop {flag}"
            )


def _segmenter_options(
    sam: str | None, clip: str | None, settings: Sequence[str] | None
) -> dict[str, Any]:
    """Options of the segmenter; values are JSON where they can be, else words."""
    options: dict[str, Any] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not name or not equals:
            raise ConfigError(
                f"--segmenter-option {setting!r} is no setting; name=value was needed; pass e.g. "
                "--segmenter-option proposals=grid"
            )
        try:
            options[name] = json.loads(value)
        except ValueError:
            options[name] = value
    named = {"sam": sam, "clip": clip}
    return {**options, **{name: value for name, value in named.items() if value is not None}}
