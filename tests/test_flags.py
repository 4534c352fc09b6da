"""The command line as it is promised: every command's arguments and flags, their types, defaults.

Names are promises to users: change one only together with CHANGELOG.md. A word of the table is a
flag's names, its type (with ? where it may be absent, * where it may be repeated) and its default;
arguments are in capitals, and what must be given ends in an exclamation mark.
"""

import inspect
import types
import typing

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import cli

PROMISED = {
    "": "--debug:flag --version:flag",
    "extract": """
        --dataset:str? --videos:Path? --table:Path? --data-root:Path=data --edition:str?
        --split-file:Path? --split-seed:int=0 --out:Path? --store:str=features
        --frame-side:int=256 --encoder:str=open_clip:ViT-B-16-quickgelu/openai --weights:Path?
        --grid:int? --geometry:str=center_crop --views:str? --segmenter:str=sam_clip --sam:str?
        --clip:str? --segmenter-option:str* --mask-files/--masks:Path? --prompts:Path?
        --prompt-mode:str=nouns --frames:int=8 --frame-rule:str=segment_centres --decoder:str=pyav
        --check-decoder:int=0 --min-decoded-ratio:float=0.95 --decode-timeout:float=60.0
        --workers:int=0 --hands:int? --scheduler:str? --tls-ca:Path? --tls-cert:Path?
        --tls-key:Path? --slurm:flag --slurm-partition:str? --slurm-account:str?
        --slurm-cores:int=4 --slurm-gpus:int=0 --slurm-memory:str=16GiB
        --slurm-walltime:str=24:00:00 --slurm-interface:str? --slurm-option:str*
        --batch-frames:int=64 --shard-videos:int=64 --limit:int?
        --retry-failed/--no-retry-failed:flag --dry-run:flag --device:str=auto --json:flag
    """,
    "train": """
        --shards:Path? --run:Path? --method:str=i2st --episodes:int=10000 --way:int=5 --shot:int=1
        --queries:int=2 --seed:int=0 --frames:int? --preset:str=i2st --masks:str=true
        --select:str=val --set:str* --config:Path? --print-config:flag --init-from:str?
        --resume/--no-resume:flag --allow-nondeterministic:flag --threads:int=1 --device:str=auto
        --json:flag
    """,
    "replay": "RUN:Path! --shards:Path? --device:str? --json:flag",
    "evaluate": """
        --shards:Path? --run:Path* --method:str? --split:str=test --way:str=5 --shot:str=1
        --queries:int=1 --episodes:int=10000 --seed:int=0 --episode-file:Path?
        --other-features/--no-other-features:flag --frames:int?
        --disjoint-groups/--no-disjoint-groups:flag
        --drop-small-classes/--no-drop-small-classes:flag --drop-seen/--no-drop-seen:flag
        --precision:str=float32 --per-class/--no-per-class:flag=True --format:str? --save:Path?
        --threads:int=1 --device:str=auto --json:flag
    """,
    "compare": """
        FIRST:str! SECOND:str! --shards:Path? --split:str=test --way:str=5 --shot:str=1
        --queries:int=1 --episodes:int=10000 --seed:int=0 --episode-file:Path?
        --other-features/--no-other-features:flag --frames:int?
        --disjoint-groups/--no-disjoint-groups:flag
        --drop-small-classes/--no-drop-small-classes:flag --drop-seen/--no-drop-seen:flag
        --precision:str=float32 --format:str?=table --threads:int=1 --device:str=auto --json:flag
    """,
    "sweep": """
        NAME:str? --over:str* --grid:flag --seeds:int=1 --shards:Path? --method:str=i2st
        --train-episodes:int=10000 --preset:str=i2st --select:str=val --set:str* --config:Path?
        --split:str=val --way:str=5 --shot:str=1 --queries:int=1 --episodes:int=10000
        --episode-seed:int=0 --seed:int=0 --interval:str=classes --format:str=table --save:Path?
        --dry-run:flag --jobs:int=1 --allow-nondeterministic:flag --threads:int=1
        --device:str=auto --json:flag
    """,
    "demo": "--out:Path=demo --smallest:flag --seed:int=0 --json:flag",
    "info": "PATH:Path! --json:flag",
    "verify": "PATH:Path! --json:flag",
    "show": """
        PATH:Path! --masks/--no-masks:flag=True --out:Path? --class:str? --prompt:str*
        --actor:str? --prompt-mode:str=nouns --segmenter:str=sam_clip --mask-files:Path?
        --sam:str? --clip:str? --frames:int=8 --device:str=auto --video:str* --limit:int=6
        --view:str? --dataset:str? --videos:Path? --table:Path? --data-root:Path=data
        --edition:str? --prompts:Path? --json:flag
    """,
    "manifest": "",
    "manifest list": "--json:flag",
    "manifest show": "NAME:str! --edition:str? --json:flag",
    "manifest check": "FOLDER:Path! --dataset:str? --table:Path? --edition:str? --json:flag",
    "manifest import": """
        DATASET:str! --from:Path? --split:str? --edition:str? --videos:Path? --data-root:Path=data
        --json:flag
    """,
    "episodes": "",
    "episodes make": """
        OUT:Path! --shards:Path? --split:str=test --way:int=5 --shot:int=1 --queries:int=1
        --episodes:int=10000 --seed:int=0 --disjoint-groups/--no-disjoint-groups:flag
        --drop-small-classes/--no-drop-small-classes:flag --json:flag
    """,
    "episodes show": "FILE:Path! --number:int? --json:flag",
    "episodes verify": """
        FILE:Path! --shards:Path? --other-features/--no-other-features:flag --json:flag
    """,
    "prompts": "",
    "prompts show": """
        DATASET:str? --videos:Path? --table:Path? --data-root:Path=data --edition:str?
        --prompts:Path? --prompt-mode:str=nouns --video:str* --json:flag
    """,
    "masks": "",
    "masks score": """
        --truth:Path! --dataset:str? --videos:Path? --table:Path? --data-root:Path=data
        --edition:str? --segmenter:str=sam_clip --mask-files/--masks:Path? --sam:str? --clip:str?
        --prompts:Path? --prompt-mode:str=nouns --frames:int=8 --limit:int? --per-class:flag
        --device:str=auto --json:flag
    """,
}


def commands(command, words=""):
    """Every command by the words that call it."""
    yield words, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{words} {word}".strip())


def type_word(annotation):
    """``int?`` for ``Annotated[int | None, ...]``, and so on."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        (inner,) = (one for one in typing.get_args(annotation) if one is not types.NoneType)
        return type_word(inner).rstrip("*") + ("*" if typing.get_origin(inner) is list else "?")
    if typing.get_origin(annotation) is list:
        return type_word(typing.get_args(annotation)[0]) + "*"
    return {bool: "flag"}.get(annotation, annotation.__name__)


def promise(parameter, of_function):
    """One word of the table."""
    required = of_function.default is inspect.Parameter.empty
    default = None if required else of_function.default
    if parameter.param_type_name == "argument":
        names = parameter.name.upper()
    else:
        names = "/".join([*parameter.opts, *parameter.secondary_opts])
    told = "" if default is None or default is False else f"={default}"
    return f"{names}:{type_word(of_function.annotation)}{told}" + "!" * required


@pytest.mark.parametrize("words", PROMISED)
def test_help_fits_a_terminal_and_no_sentence_of_it_is_cut_short(words):
    asked = CliRunner().invoke(cli.app, [*words.split(), "--help"], env={"COLUMNS": "80"})
    assert asked.exit_code == 0
    assert max(map(len, asked.stdout.splitlines())) <= 80
    assert not [
        line
        for line in asked.stdout.splitlines()
        if line.endswith("...") and not line.startswith("Usage:")
    ]


def test_every_command_and_flag_is_as_promised():
    found = {}
    for words, command in commands(get_command(cli.app)):
        function = inspect.unwrap(command.callback) if command.callback else None
        of_function = inspect.signature(function).parameters if function else {}
        found[words] = [
            promise(parameter, of_function[parameter.name])
            for parameter in command.params
            if parameter.name in of_function
        ]
    assert sorted(found) == sorted(PROMISED)
    for words, promised in PROMISED.items():
        # Arguments are taken in their order, flags in any.
        for are_flags, in_order in ((False, list), (True, sorted)):
            here, there = (
                in_order(word for word in some if word.startswith("-") == are_flags)
                for some in (found[words], promised.split())
            )
            assert here == there, words
