"""The command line of i2st: which commands there are, and how a fault ends one.

The commands themselves are in `pipeline.commands` and `i2st_model.commands`. Together they print,
take flags and decide the exit status; nothing else does these three things.
"""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import data_manifests
from i2st_model.commands.compare import compare
from i2st_model.commands.demo import demo
from i2st_model.commands.episodes import episodes_make, episodes_show, episodes_verify
from i2st_model.commands.evaluate import evaluate
from i2st_model.commands.replay import replay
from i2st_model.commands.sweep import sweep
from i2st_model.commands.train import train
from pipeline.commands.console import EXIT_SIGNAL, note, printable
from pipeline.commands.extract import extract
from pipeline.commands.manifests import (
    manifest_check,
    manifest_import,
    manifest_list,
    manifest_show,
)
from pipeline.commands.masks import masks_score
from pipeline.commands.prompts import prompts_show
from pipeline.commands.shards import info, verify
from pipeline.commands.show import show
from pipeline.errors import I2STError

COMMANDS = (extract, train, replay, evaluate, compare, sweep, demo, info, verify, show)
"""Called as their functions are; in the order of `i2st --help`."""
GROUPS: dict[str, tuple[str, dict[str, Callable[..., None]]]] = {
    "manifest": (
        "What a dataset holds, and what is on disk.",
        {
            "list": manifest_list,
            "show": manifest_show,
            "check": manifest_check,
            "import": manifest_import,
        },
    ),
    "episodes": (
        "Files of test episodes: the same for everyone, by video id.",
        {"make": episodes_make, "show": episodes_show, "verify": episodes_verify},
    ),
    "prompts": ("What the segmenter is asked to find.", {"show": prompts_show}),
    "masks": ("How good a segmenter's masks are.", {"score": masks_score}),
}
"""Groups of commands: what they are about, and the function of each word."""

HELP = """
Few-shot action recognition: cache frame features and action masks once, recognise new actions
from one to five clips.

The whole story, once the videos are in data/hmdb51/<class>/<clip>:

\b
    i2st extract --dataset hmdb51
    i2st train --episodes 10000
    i2st evaluate --way 5 --shot 3

No videos at hand? `i2st demo` makes some and does all three, without a network connection.

Exit codes: 0 complete, 2 usage or a path that leads nowhere, 3 done but some videos are skipped or
absent, 4 data refused, 5 disk or memory, 130 and 143 stopped by a signal.
"""

_debug = False


class FaultPrinter(TyperGroup):
    """Prints a fault that the user can mend as one line and exits with its code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; with --debug faults keep their traceback."""
        try:
            return super().invoke(ctx)
        except I2STError as fault:
            if _debug:
                raise
            note(f"error: {printable(' '.join(str(fault).split()))}")
            raise typer.Exit(fault.exit_code) from None
        except KeyboardInterrupt:
            note(
                "interrupted; finished work is kept: `i2st extract` goes on when it is run again, "
                "`i2st train` with --resume"
            )
            raise typer.Exit(EXIT_SIGNAL + 2) from None


app = typer.Typer(
    cls=FaultPrinter,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in COMMANDS:
    app.command()(_command)
for _name, (_about, _commands) in GROUPS.items():
    _group = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
    for _word, _command in _commands.items():
        _group.command(_word)(_command)
    app.add_typer(_group, name=_name, help=_about)


def main() -> None:
    """Entry point of the console script."""
    # Without one, as after `2>&-`, what is meant for stderr would be printed as a result.
    with open(os.devnull, "w") as nowhere:
        sys.stderr = sys.stderr or nowhere
        app(prog_name="i2st")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"i2st {data_manifests.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the flags that stand before a command."""
    global _debug
    _debug = debug or bool(os.environ.get("I2ST_DEBUG"))
