"""What the documents tell a user to type must be something the program takes."""

import re
import shlex
from dataclasses import MISSING, fields

import pytest
from typer.main import get_command

import cli
from i2st_model.config import PRESETS, NetworkConfig
from i2st_model.end_to_end.encoder_config import EncoderConfig
from i2st_model.training.config import TrainConfig

DOCUMENTS = (
    "README.md",
    "docs/datasets.md",
    "docs/evaluation.md",
    "docs/extraction.md",
    "docs/masks.md",
    "docs/method.md",
    "docs/shards.md",
    "docs/training.md",
)


def commands(text: str) -> list[str]:
    """Every line of an indented block that calls i2st, without its comment."""
    lines = (line[4:] for line in text.splitlines() if line.startswith("    i2st "))
    return [re.split(r"\s+#", line)[0].replace(" ...", " ").strip() for line in lines]


def parse(words: list[str]) -> None:
    """Parse as the console script would, down to the last sub-command, without running it."""
    command = get_command(cli.app)
    context = command.make_context("i2st", list(words), resilient_parsing=False)
    while hasattr(command, "commands"):
        name, *rest = _rest(context)
        command = command.commands[name]
        context = command.make_context(name, rest, parent=context)


def _rest(context) -> list[str]:
    return [*getattr(context, "_protected_args", []), *context.args]


def documented(repository) -> list[tuple[str, str]]:
    return [
        (name, command)
        for name in DOCUMENTS
        for command in commands((repository / name).read_text())
    ]


def test_documented_commands_parse(repository):
    found = documented(repository)
    assert len(found) > 10
    for name, command in found:
        try:
            parse(shlex.split(command)[1:])
        except Exception as error:
            pytest.fail(f"{name}: {command}: {error}")


def test_the_three_commands_stand_in_the_readme_as_promised(repository):
    typed = commands((repository / "README.md").read_text())
    assert typed[:3] == [
        "i2st extract --dataset hmdb51",
        "i2st train --episodes 10000",
        "i2st evaluate --way 5 --shot 3",
    ]


def test_parse_refuses_what_the_program_refuses():
    with pytest.raises(Exception, match="--epochs"):
        parse(["train", "--epochs", "3"])


def test_links_between_documents_lead_somewhere(repository):
    for path in (repository / "README.md", *(repository / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links {target}"


def test_every_setting_stands_in_the_method_page_with_its_default(repository):
    page = (repository / "docs" / "method.md").read_text()
    elsewhere = {"token_dim", "grid", "base_classes", "network", "options", "encoder"}
    for field in (*fields(NetworkConfig), *fields(TrainConfig)):
        if field.name not in elsewhere:
            assert f"| `{field.name}` | {field.default} |" in page, field.name
    for name in PRESETS:
        assert f"`{name}`" in page


def test_every_encoder_setting_stands_in_the_training_page_with_its_default(repository):
    page = (repository / "docs" / "training.md").read_text()
    for field in fields(EncoderConfig):
        default = "" if field.default is MISSING else f"{field.default} "
        assert f"| `encoder.{field.name}` | {default}|" in page, field.name
