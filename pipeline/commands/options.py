"""Flags that several commands of stage one take, and which flags were typed."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", help="A shipped dataset; see `i2st manifest list`.")
]
Edition = Annotated[
    str | None, typer.Option(help="Which published list chooses the videos (kinetics100).")
]
VideosFolder = Annotated[
    Path | None,
    typer.Option("--videos", help="Folder with one folder of clips per class; or the dataset's."),
]
TableFile = Annotated[
    Path | None, typer.Option("--table", help="CSV or JSONL with path, class, split[, group].")
]
DataRoot = Annotated[Path, typer.Option(help="Folder that holds the datasets.")]
SplitFile = Annotated[
    Path | None, typer.Option(help="YAML with train, val and test classes, for --videos.")
]
SplitSeed = Annotated[int, typer.Option(help="Draws the class splits of --videos.")]
MaskFiles = Annotated[
    Path | None,
    # Its first name is that of `i2st show`, where --masks asks for masks on the picture.
    typer.Option("--mask-files", "--masks", help="Folder of mask files, for precomputed."),
]
PromptMode = Annotated[str, typer.Option(help="nouns, raw_label or actor_only.")]
PromptFile = Annotated[Path | None, typer.Option("--prompts", help="YAML of your own prompts.")]
SegmenterName = Annotated[str, typer.Option(help="A segmenter, as for `i2st extract`.")]
SamWeights = Annotated[str | None, typer.Option("--sam", help="SAM of sam_clip, as for extract.")]
ClipWeights = Annotated[
    str | None, typer.Option("--clip", help="CLIP of sam_clip, as for extract.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def typed_names(ctx: typer.Context) -> dict[str, str]:
    """Names of the parameters that stand on the command line, each with its flag."""
    flags = {parameter.name or "": parameter.opts[0] for parameter in ctx.command.params}
    return {
        name: flag
        for name, flag in flags.items()
        if (source := ctx.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }


def refuse_typed(ctx: typer.Context, names: str, what: str) -> None:
    """Refuse the first flag, of those whose names stand in ``names``, that was typed.

    Args:
        ctx: of the command.
        names: of its parameters, separated by spaces.
        what: for which they say nothing, in words.

    Raises:
        ConfigError: one of them stands on the command line.
    """
    for name, flag in typed_names(ctx).items():
        if name in names.split():
            raise ConfigError(
                f"{flag} beside {what}, for which it says nothing; needed: flags of one kind; drop "
                "it"
            )
