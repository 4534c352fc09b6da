"""The rooms of the house: imports go one way, commands alone talk, and data is never executed."""

import ast
from pathlib import Path

import pytest

FLOORS = {"data_manifests": 0, "pipeline": 1, "i2st_model": 2, "cli": 3}
TALK = {"print", "input", "sys.exit", "exit", "quit"}
STREAMS = {"sys.stdout", "sys.stderr"}
EXIT_BY_SIGNAL = {"pipeline/scheduling/interruption.py", "pipeline/extraction/run.py"}
"""A second signal ends the program wherever it is, so they raise SystemExit."""
UNSAFE_CALLS = {"eval", "exec", "os.system", "yaml.load", "pickle.load", "pickle.loads"}
UNSAFE_IMPORTS = {"pickle", "marshal", "joblib", "dill", "shelve"}


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


def keyword_value(call: ast.Call, name: str) -> object:
    for keyword in call.keywords:
        if keyword.arg == name and isinstance(keyword.value, ast.Constant):
            return keyword.value.value
    return None


def unsafe_parts(tree: ast.AST) -> list[str]:
    found = sorted(imported_modules(tree) & UNSAFE_IMPORTS)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in UNSAFE_CALLS:
            found.append(name)
        if name == "torch.load" and keyword_value(node, "weights_only") is not True:
            found.append("torch.load without weights_only=True")
        if keyword_value(node, "allow_pickle") or keyword_value(node, "shell"):
            found.append(f"{name} with allow_pickle or shell")
    return found


def test_no_source_runs_code_from_data(repository):
    for path in sources(repository):
        assert unsafe_parts(ast.parse(path.read_text())) == [], path


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)",
        "subprocess.run(c, shell=True)",
        "eval(s)",
        "yaml.load(s)",
    ],
)
def test_the_check_for_unsafe_parts_can_fail(line):
    assert unsafe_parts(ast.parse(line))
