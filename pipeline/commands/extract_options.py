"""Flags that `i2st extract` alone takes; `pipeline.commands.options` has those of several."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.errors import ConfigError

OutFolder = Annotated[
    Path | None, typer.Option(help="Folder for the shards.  [default: shards/NAME]")
]
StoreKind = Annotated[
    str, typer.Option(help="features, or frames: pictures for training an encoder.")
]
FrameSide = Annotated[
    int, typer.Option(help="Longest short side of a stored frame, for --store frames.")
]
EncoderName = Annotated[
    str, typer.Option(help="open_clip:MODEL/TAG, timm:NAME, efficientnet-lite0 or -lite2.")
]
EncoderWeights = Annotated[Path | None, typer.Option(help="Weight file of the encoder.")]
TokenGrid = Annotated[
    int | None, typer.Option(help="Cells per side of the token grid.  [default: encoder's]")
]
Geometry = Annotated[str, typer.Option(help="center_crop or full_frame.")]
Views = Annotated[
    str | None,
    typer.Option("--views", help="Views stored for training: some of flip,shift,scale."),
]
Segmenter = Annotated[
    str,
    typer.Option(
        help="sam_clip, sam3, grounding_dino_sam, precomputed, center_prior or none, some "
        "with :MODEL."
    ),
]
Sam = Annotated[str | None, typer.Option(help="SAM of sam_clip: vit_b, vit_l, vit_h or a file.")]
Clip = Annotated[str | None, typer.Option(help="CLIP of sam_clip: MODEL/TAG of open_clip.")]
SegmenterOption = Annotated[
    list[str] | None,
    typer.Option(metavar="<name=value>", help="Any other setting of the segmenter; repeat."),
]
StoredFrames = Annotated[int, typer.Option(help="Frames stored per video.")]
FrameRule = Annotated[str, typer.Option(help="segment_centres or uniform_endpoints.")]
DecoderName = Annotated[str, typer.Option(help="pyav or decord.")]
CheckDecoder = Annotated[
    int, typer.Option(help="Compare this many videos with the other decoder first.")
]
MinDecodedRatio = Annotated[float, typer.Option(help="Refuse a file of which less decodes.")]
DecodeTimeout = Annotated[float, typer.Option(help="Seconds per video.")]
Workers = Annotated[
    int,
    typer.Option(help="Processes, one per GPU; with --slurm jobs. 0 works in this process."),
]
Hands = Annotated[
    int | None,
    typer.Option(help="Portions a worker has in hand.  [default: its processors, and 1]"),
]
Scheduler = Annotated[
    str | None,
    typer.Option(help="Work on this dask scheduler: tls://HOST:PORT, or tcp://127.0.0.1:PORT."),
]
TlsCa = Annotated[Path | None, typer.Option(help="For tls://: the authority's file.")]
TlsCert = Annotated[Path | None, typer.Option(help="For tls://: the certificate.")]
TlsKey = Annotated[Path | None, typer.Option(help="For tls://: its key.")]
Slurm = Annotated[bool, typer.Option("--slurm", help="Work in SLURM jobs, as many as --workers.")]
SlurmPartition = Annotated[str | None, typer.Option(help="Of the jobs.")]
SlurmAccount = Annotated[str | None, typer.Option(help="Of the jobs.")]
SlurmCores = Annotated[int, typer.Option(help="Processors of a job.")]
SlurmGpus = Annotated[int, typer.Option(help="GPUs of a job.")]
SlurmMemory = Annotated[str, typer.Option(help="Memory of a job.")]
SlurmWalltime = Annotated[str, typer.Option(help="Longest time of a job.")]
SlurmInterface = Annotated[
    str | None, typer.Option(help="Network interface that reaches the nodes, e.g. ib0.")
]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option(metavar="<str>", help="Further directive, e.g. --constraint=a100; repeat."),
]
BatchFrames = Annotated[int, typer.Option(help="Frames per encoder call.")]
ShardVideos = Annotated[int, typer.Option(help="Videos per shard.")]
VideoLimit = Annotated[
    int | None, typer.Option(help="At most this many videos, in turn from every class.")
]
RetryFailed = Annotated[bool, typer.Option(help="Try failed videos again.", show_default=False)]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say how much is left, from a probe; write nothing.")
]


def segmenter_options(
    sam: str | None, clip: str | None, settings: Sequence[str] | None
) -> dict[str, Any]:
    """Read the options of a segmenter.

    Args:
        sam: of --sam.
        clip: of --clip.
        settings: of --segmenter-option, as name=value; values are JSON where they can be.

    Returns:
        Those that were given, by name.

    Raises:
        ConfigError: a setting cannot be read.
    """
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
