"""`i2st demo`: the whole story on videos made on the spot."""

from pathlib import Path
from typing import Annotated

import typer

from i2st_model.commands.opening import use_threads
from i2st_model.commands.options import Seed
from pipeline.commands.console import note, show_json, show_table
from pipeline.commands.options import Json
from pipeline.commands.progress import progress


def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that the demo makes.")] = Path("demo"),
    tiny: Annotated[
        bool, typer.Option("--smallest", help="A few videos and steps, only to see that it runs.")
    ] = False,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The whole story on synthetic videos made on the spot. Needs no data and no network."""
    from i2st_model.demonstration import DemoConfig, run_demo, smallest

    use_threads(1)
    config = DemoConfig(out=out, seed=seed)
    config = smallest(config) if tiny else config
    note(
        "synthetic videos: these accuracies show that everything works, nothing about real actions"
    )
    with progress("demo") as show:
        report = run_demo(config, on_progress=lambda p: show(p.done, p.total, p.stage))
    if as_json:
        show_json(report.to_json())
        return
    shots = config.shots
    accuracies = {(e.method, e.config.shot): e.accuracy for e in report.evaluations}
    rows = [
        (
            name,
            *(
                f"{accuracies[name, shot].mean:.1f} +/- {accuracies[name, shot].half_width:.1f}"
                for shot in shots
            ),
        )
        for name in dict.fromkeys(e.method for e in report.evaluations)
    ]
    show_table(rows, ("5-way accuracy, %", *(f"{shot}-shot" for shot in shots)))
    typer.echo(
        f"unseen classes of synthetic videos, {config.episodes} episodes, 95 % intervals; half of\n"
        "the classes are another one backwards, so a mean over frames cannot tell them apart;\n"
        "the settings of i2st were chosen with these classes in view"
    )
    typer.echo(
        f"videos  {report.table}\nshards  {report.shards}\nrun     {report.training.run_folder}"
    )
    typer.echo(f"next    cd {out} && i2st evaluate --way 5 --shot 3")
