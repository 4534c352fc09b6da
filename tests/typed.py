"""Commands as typed, and settings of a training that is over in a second."""

from typer.testing import CliRunner

import cli

SETTINGS = ("dim=16", "heads=2", "mask_width=8", "num_instances=2", "perception_layers=1")
TINY = [w for one in (*SETTINGS, "stem_tokens=2000") for w in ("--set", one)]
TRAIN = ["train", "--episodes", "64", "--device", "cpu", "--select", "last", *TINY]
FEW = ["--episodes", "60"]


def i2st(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def done(*words):
    result = i2st(*words)
    assert result.exit_code == 0, result.output
    return result


def refusal(*words, code=2):
    """The one line that a command is refused in."""
    result = i2st(*words)
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line
