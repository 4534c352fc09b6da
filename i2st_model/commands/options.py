"""Flags that several commands of stage two take."""

from pathlib import Path
from typing import Annotated

import typer

Shards = Annotated[
    Path | None, typer.Option(help="Folder of shards.  [default: the newest in shards/]")
]
Seed = Annotated[int, typer.Option(min=0, help="Decides every draw.")]
Threads = Annotated[
    int, typer.Option(min=1, help="CPU threads; with more than 1 the last bits may vary.")
]
