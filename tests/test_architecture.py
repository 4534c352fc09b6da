"""The rooms of the house: imports go one way, commands alone talk, and data is never executed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from synthetic_shards import make_shards

from i2st_model.checkpoints import CheckpointInfo, save_checkpoint
from i2st_model.evaluation import EvaluateConfig, evaluate
from i2st_model.features import FeatureStore
from i2st_model.methods import get_method
from i2st_model.records.episode_files import save_episodes
from i2st_model.records.results import save_results

FLOORS = {"data_manifests": 0, "pipeline": 1, "i2st_model": 2, "cli": 3}
TALK = {"print", "input", "sys.exit", "exit", "quit"}
STREAMS = {"sys.stdout", "sys.stderr"}
EXIT_BY_SIGNAL = {"pipeline/scheduling/interruption.py", "pipeline/extraction/run.py"}
"""A second signal ends the program wherever it is, so they raise SystemExit."""
UNSAFE_MODULES = {
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"),
}
UNSAFE_NAMES = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "torch.load"),
    *("torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *(f"yaml.{name}" for name in ("load", "load_all", "unsafe_load", "unsafe_load_all")),
    *(f"yaml.{name}" for name in ("full_load", "full_load_all", "Loader", "UnsafeLoader")),
    *("yaml.FullLoader", "yaml.CLoader", "pandas.read_pickle", "numpy.lib.format.read_array"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell"),
}
"""By the full name of what is used, however it was imported."""
DENIED_FLAGS = ("allow_pickle", "shell")
"""Only ever given as False, so that no variable turns them on."""
PERMITTED = "torch.load with weights_only=True"
PERMITTED_IN = "pipeline/encoders/weights.py"
"""The one place that reads others' weights; everything of ours is safetensors or JSON."""


def sources(repository: Path) -> list[Path]:
    folders = ("data_manifests", "pipeline", "i2st_model")
    return [
        repository / "cli.py",
        *(p for name in folders for p in (repository / name).rglob("*.py")),
    ]


def imported_modules(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_imports_go_one_way(repository):
    for path in sources(repository):
        floor = FLOORS[path.relative_to(repository).parts[0].removesuffix(".py")]
        for module in imported_modules(ast.parse(path.read_text())):
            top = module.split(".")[0]
            assert FLOORS.get(top, -1) <= floor, f"{path} imports {module}, which lies above it"


def test_stage_two_takes_only_the_public_side_of_stage_one(repository):
    for path in (repository / "i2st_model").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipeline"):
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not private, f"{path} imports {private} of {node.module}"


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def is_command(path: Path, repository: Path) -> bool:
    parts = path.relative_to(repository).parts
    return parts[0] == "cli.py" or parts[1] == "commands"


def talking_parts(tree: ast.AST) -> list[str]:
    """What prints, takes flags or decides an exit status; flushing a stream is none of it."""
    found = sorted(
        module
        for module in imported_modules(tree)
        if module.split(".")[0] in ("typer", "click", "argparse")
        or module.split(".")[1:2] == ["commands"]
    )
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func) in TALK:
            found.append(dotted(node.func))
        if isinstance(node, ast.Call | ast.keyword):
            values = [node.value] if isinstance(node, ast.keyword) else node.args
            found += [name for name in map(dotted, values) if name in STREAMS]
        if isinstance(node, ast.Attribute) and node.attr in ("write", "writelines"):
            found += [name for name in [dotted(node.value)] if name in STREAMS]
        if isinstance(node, ast.Raise) and node.exc is not None:
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            found += ["SystemExit"] if dotted(raised) == "SystemExit" else []
    return found


def test_only_commands_print_take_flags_and_decide_the_exit_status(repository):
    silent = [path for path in sources(repository) if not is_command(path, repository)]
    assert len(silent) > 100
    for path in silent:
        known = ["SystemExit"] if str(path.relative_to(repository)) in EXIT_BY_SIGNAL else []
        assert talking_parts(ast.parse(path.read_text())) == known, path


@pytest.mark.parametrize(
    "line",
    [
        "print('done')",
        "import typer",
        "from typer import echo",
        "from pipeline.commands.console import note",
        "from pipeline.commands import console",
        "from pipeline import commands",
        "sys.stdout.write('done')",
        "console = Console(file=sys.stderr)",
        "sys.exit(2)",
        "raise SystemExit(2)",
        "raise SystemExit",
    ],
)
def test_the_check_for_talk_can_fail(line):
    assert talking_parts(ast.parse(line))
    assert not talking_parts(ast.parse("sys.stdout.flush()"))


def full_names(tree: ast.AST) -> dict[str, str]:
    """What each imported name stands for: of ``from os import system as s``, s -> os.system."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def resolved(node: ast.expr, names: dict[str, str]) -> str:
    first, dot, rest = dotted(node).partition(".")
    return (names.get(first, first) + dot + rest).removeprefix("builtins.")


def is_given(call: ast.Call, flag: str, value: object) -> bool:
    given = [one.value for one in call.keywords if one.arg == flag]
    return len(given) == 1 and isinstance(given[0], ast.Constant) and given[0].value is value


def unsafe_parts(tree: ast.AST) -> list[str]:
    """What could run code from data, or a shell; weights alone are an entry of their own."""
    names = full_names(tree)
    found = sorted(one for one in imported_modules(tree) if one.split(".")[0] in UNSAFE_MODULES)
    found += sorted(
        {name.removeprefix("builtins.") for name in names.values()} & UNSAFE_NAMES
    )  # under another name it is no call of ours
    safe_loads = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = resolved(node.func, names)
            if called == "torch.load" and is_given(node, "weights_only", True):
                safe_loads.add(node.func)
                found.append(PERMITTED)
            if called.endswith("import_module") and node.args:
                module = node.args[0]
                if isinstance(module, ast.Constant) and module.value in UNSAFE_MODULES:
                    found.append(f"import of {module.value}")
            flags = [one.arg for one in node.keywords if one.arg in DENIED_FLAGS]
            found += [f"{called} with {flag}" for flag in flags if not is_given(node, flag, False)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and node not in safe_loads:
            used = resolved(node, names)
            found += [used] if used in UNSAFE_NAMES else []
            found += [used] if used.startswith(("os.exec", "os.spawn")) else []
    return found


def test_no_source_runs_code_from_data(repository):
    for path in sources(repository):
        permitted = [PERMITTED] if str(path.relative_to(repository)) == PERMITTED_IN else []
        assert unsafe_parts(ast.parse(path.read_text())) == permitted, path


@pytest.mark.parametrize(
    "lines",
    [
        "import pickle",
        "import _pickle",
        "import cloudpickle as c",
        "from pickle import loads",
        "from joblib import load",
        "__import__('pickle')",
        "import importlib\nimportlib.import_module('pickle')",
        "import torch\ntorch.load(p)",
        "import torch\ntorch.load(p, weights_only=False)",
        "import torch\ntorch.load(p, weights_only=flag)",
        "import torch as t\nt.load(p)",
        "from torch import load\nload(p)",
        "import torch\nread = torch.load",
        "import torch\ntorch.jit.load(p)",
        "from torch.jit import load",
        "import numpy as np\nnp.load(p, allow_pickle=True)",
        "import numpy as np\nnp.load(p, allow_pickle=flag)",
        "import pandas as pd\npd.read_pickle(p)",
        "import subprocess\nsubprocess.run(c, shell=True)",
        "import subprocess\nsubprocess.run(c, shell=flag)",
        "import subprocess\nsubprocess.getoutput(c)",
        "eval(s)",
        "exec(s)",
        "import builtins\nbuiltins.eval(s)",
        "from builtins import eval as e",
        "import os\nos.system(s)",
        "import os\nos.popen(s)",
        "import os as o\no.system(s)",
        "from os import system",
        "import os\nos.execv(s, a)",
        "import yaml\nyaml.load(s)",
        "import yaml\nyaml.load(s, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.unsafe_load(s)",
        "import yaml\nyaml.full_load(s)",
        "import yaml\nyaml.compose(s, Loader=yaml.UnsafeLoader)",
        "from yaml import load",
    ],
)
def test_the_check_for_unsafe_parts_can_fail(lines):
    assert set(unsafe_parts(ast.parse(lines))) - {PERMITTED}


@pytest.mark.parametrize(
    "lines",
    [
        "import re\nre.compile(p)",
        "import numpy as np\nnp.load(p, allow_pickle=False)",
        "import yaml\nyaml.safe_load(s)\nyaml.compose(s, Loader=yaml.SafeLoader)",
        "import subprocess\nsubprocess.run(c, shell=False)",
        "import json\njson.load(f)",
        "model.eval()",
        "import torch\ntorch.compile(m)",
    ],
)
def test_the_check_for_unsafe_parts_lets_safe_ones_pass(lines):
    assert unsafe_parts(ast.parse(lines)) == []


LOADS = """
import sys
from pathlib import Path

found = []
sys.addaudithook(lambda event, details: event == "pickle.find_class" and found.append(details))
from i2st_model.checkpoints import load_checkpoint
from i2st_model.features import FeatureStore
from i2st_model.records.episode_files import load_episodes
from i2st_model.records.results import load_results
from pipeline.shards.reader import ShardReader

found.clear()  # packages may unpickle what is their own while they are imported
place = Path(sys.argv[1])
store = FeatureStore(ShardReader(place / "shards"))
store.tokens(store.rows_of(store.classes_of("test")))
store.mask_targets(store.rows_of(store.classes_of("train"))[:2], 4)
load_checkpoint(place)
load_episodes(place / "e")
load_results(place / "r")
assert not found, found
import pickle

pickle.loads(pickle.dumps(Path("a")))
assert found, "the hook sees nothing"
"""


INFO = CheckpointInfo(
    network={},
    train={"episodes": 3},
    fingerprint={},
    dataset="toy",
    digest="d" * 64,
    train_classes=["clap"],
    step=5,
    val_accuracy=None,
    selected="last",
)


def test_no_file_of_ours_is_unpickled(tmp_path, repository):
    store = FeatureStore(make_shards(tmp_path / "shards"))
    save_checkpoint(tmp_path, {"a": torch.zeros(1)}, INFO)
    found = evaluate(get_method("random"), store, EvaluateConfig(episodes=2, device="cpu")).result
    save_episodes(tmp_path / "e", found.episodes)
    save_results(tmp_path / "r", [found])
    child = subprocess.run(
        [sys.executable, "-c", LOADS, str(tmp_path)],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
