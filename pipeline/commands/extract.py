"""`i2st extract`: its flags, and the settings that they make."""

from dataclasses import asdict
from pathlib import Path

import typer

from pipeline.commands import extract_options as flags
from pipeline.commands.console import show_settings
from pipeline.commands.extraction_report import (
    note_drawn,
    note_missing,
    run_extraction,
    show_estimate,
)
from pipeline.commands.options import (
    DataRoot,
    DatasetName,
    Device,
    Edition,
    Json,
    MaskFiles,
    PromptFile,
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
    out: flags.OutFolder = None,
    store: flags.StoreKind = "features",
    frame_side: flags.FrameSide = 256,
    encoder: flags.EncoderName = "open_clip:ViT-B-16-quickgelu/openai",
    weights: flags.EncoderWeights = None,
    grid: flags.TokenGrid = None,
    geometry: flags.Geometry = "center_crop",
    view_words: flags.Views = None,
    segmenter: flags.Segmenter = "sam_clip",
    sam: flags.Sam = None,
    clip: flags.Clip = None,
    segmenter_option: flags.SegmenterOption = None,
    masks: MaskFiles = None,
    prompts: PromptFile = None,
    prompt_mode: PromptMode = "nouns",
    frames: flags.StoredFrames = 8,
    frame_rule: flags.FrameRule = "segment_centres",
    decoder: flags.DecoderName = "pyav",
    check_decoder: flags.CheckDecoder = 0,
    min_decoded_ratio: flags.MinDecodedRatio = 0.95,
    decode_timeout: flags.DecodeTimeout = 60.0,
    workers: flags.Workers = 0,
    hands: flags.Hands = None,
    scheduler: flags.Scheduler = None,
    tls_ca: flags.TlsCa = None,
    tls_cert: flags.TlsCert = None,
    tls_key: flags.TlsKey = None,
    use_slurm: flags.Slurm = False,
    slurm_partition: flags.SlurmPartition = None,
    slurm_account: flags.SlurmAccount = None,
    slurm_cores: flags.SlurmCores = 4,
    slurm_gpus: flags.SlurmGpus = 0,
    slurm_memory: flags.SlurmMemory = "16GiB",
    slurm_walltime: flags.SlurmWalltime = "24:00:00",
    slurm_interface: flags.SlurmInterface = None,
    slurm_option: flags.SlurmOption = None,
    batch_frames: flags.BatchFrames = 64,
    shard_videos: flags.ShardVideos = 64,
    limit: flags.VideoLimit = None,
    retry_failed: flags.RetryFailed = False,
    dry_run: flags.DryRun = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Stage one: decode, encode and segment videos once, into shards. Run again, it goes on."""
    from pipeline.datasets import open_dataset
    from pipeline.devices import resolve_device
    from pipeline.encoders import require_encoder
    from pipeline.extraction.config import ExtractConfig
    from pipeline.prompt_tables import load_prompt_tables
    from pipeline.scheduling import SlurmSettings
    from pipeline.segmenters import require_segmenter

    if not use_slurm:
        _refuse_flags_of_jobs(ctx)
    drawn = dataset is None and table is None and split_file is None
    unread: set[str] = set()
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
            unread.update(idle.split())
    # Before the videos are looked for, which may take long.
    require_encoder(encoder)
    require_segmenter(segmenter)
    if device.startswith("cuda") and scheduler is None and not use_slurm:
        resolve_device(device)
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
        segmenter_options=flags.segmenter_options(sam, clip, segmenter_option),
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
        "split_seed": split_seed,
    }
    told = {**asdict(config), **beside}
    show_settings({name: value for name, value in told.items() if name not in unread})
    if drawn:
        note_drawn(source, split_seed)
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
