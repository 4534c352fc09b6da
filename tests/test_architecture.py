"""The rooms of the house: imports go one way, and data is never executed."""

import ast
from pathlib import Path

import pytest

FLOORS = {"data_manifests": 0, "pipeline": 1, "i2st_model": 2, "cli": 3}
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
            found.add(node.module)
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
