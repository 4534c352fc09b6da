"""Flags that several commands of stage two take."""

from pathlib import Path
from typing import Annotated

import typer

Shards = Annotated[
    Path | None, typer.Option(help="Folder of shards.  [default: the newest in shards/]")
]
RunShards = Annotated[
    Path | None, typer.Option("--shards", help="Folder of shards.  [default: those of the run]")
]
Seed = Annotated[int, typer.Option(min=0, metavar="<int>", help="Decides every draw.")]
Threads = Annotated[
    int,
    typer.Option(
        min=1, metavar="<int>", help="CPU threads; with more than 1 the last bits may vary."
    ),
]
AllowNondeterministic = Annotated[
    bool,
    typer.Option(
        "--allow-nondeterministic", help="Resume on other threads or another device, too."
    ),
]

Split = Annotated[str, typer.Option(help="train, val or test.")]
Way = Annotated[int, typer.Option(help="Classes per episode.")]
Shot = Annotated[int, typer.Option(help="Support clips per class.")]
Ways = Annotated[str, typer.Option("--way", help="Classes per episode; or several: 5,10.")]
Shots = Annotated[str, typer.Option("--shot", help="Support clips per class; or several: 1,3,5.")]
Queries = Annotated[int, typer.Option(help="Query clips per class.")]
Episodes = Annotated[int, typer.Option(help="How many episodes.")]
DisjointGroups = Annotated[
    bool, typer.Option(help="Support and query from different source videos.", show_default=False)
]
DropSmallClasses = Annotated[
    bool, typer.Option(help="Leave out classes with too few videos.", show_default=False)
]
DropSeen = Annotated[
    bool, typer.Option(help="Leave out classes and videos that training saw.", show_default=False)
]
EpisodeFile = Annotated[Path | None, typer.Option(help="Replay these; see `i2st episodes make`.")]
OtherFeatures = Annotated[
    bool,
    typer.Option(
        help="Accept episodes of the same videos seen by another encoder.", show_default=False
    ),
]
ClipFrames = Annotated[
    int | None,
    typer.Option("--frames", help="Frames of a clip.  [default: the run's, or all stored]"),
]
Precision = Annotated[str, typer.Option(help="float32, or float64 for checks.")]
Form = Annotated[str | None, typer.Option("--format", help="table, markdown, csv, latex or json.")]
