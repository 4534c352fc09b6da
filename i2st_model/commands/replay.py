"""`i2st replay`: the step that stopped a run, once more, and what in it is not finite."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

import typer

from i2st_model.commands.opening import open_features, use_threads
from i2st_model.commands.options import Shards
from pipeline.commands.console import show_result
from pipeline.commands.options import Json
from pipeline.errors import ConfigError

SHOWN = 5
"""Names of modules or parameters on one line."""


def replay(
    run: Annotated[Path, typer.Argument(help="Folder of a run that a loss or gradient stopped.")],
    shards: Shards = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:N.  [default: as the run]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Repeat the step that stopped a run. Says which term, module and gradient is not finite."""
    from i2st_model.settings import recorded_run
    from i2st_model.training.replay import replay as repeat

    recorded = recorded_run(run)
    folder = shards or recorded.shards
    if folder is None:
        raise ConfigError(f"the shards of {run} are not where they were; pass --shards")
    use_threads(recorded.threads)
    config = replace(recorded.train, device=device or recorded.train.device)
    store = open_features(folder, config.frames, encoder=config.encoder, device=config.device)
    found = repeat(config, store, run)
    (first, last), norm = found.episodes, found.gradient_norm
    values: dict[str, Any] = {
        "step": found.step,
        "episodes": f"{first} to {last}",
        "pools": list(found.pools),
        "reproduced": found.reproduced,
        "terms": list(found.bad_terms),
        "modules": list(found.bad_modules),
        "gradients": list(found.bad_gradients),
        # JSON has no inf and no nan.
        "gradient_norm": norm if isfinite(norm) else str(norm),
    }
    if not as_json:
        values = {
            name: _some(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    show_result(values, as_json)


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(map(str, names[:SHOWN])) or "-"
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
