"""Entry points of other packages that are broken: one line says so, and the rest works."""

import re

import pytest
from synthetic_shards import make_shards
from typer.testing import CliRunner

import cli
from i2st_model.methods import get_method
from pipeline.encoders import get_encoder
from pipeline.errors import BackendError

MODULES = {
    "lacking": "import a_package_that_is_absent\n",
    "failing": "raise RuntimeError('no licence\\nwas found')\n",
    "emptied": "",
    "mistaken": "Method = print\n",
    "partial": "from i2st_model.methods.base import FewShotMethod as Method\n",
    "sound": "from i2st_model.methods.chance import Chance\n\n\nclass Method(Chance):\n    pass\n",
}


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """A distribution with an entry of each kind, among methods and among encoders."""
    info = tmp_path / "site" / "plugged-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1.0\n")
    entries = "\n".join(f"{name} = plugged_{name}:Method" for name in MODULES)
    (info / "entry_points.txt").write_text(
        f"[i2st.methods]\n{entries}\n\n[i2st.encoders]\n{entries}\n"
    )
    for name, source in MODULES.items():
        (tmp_path / "site" / f"plugged_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    make_shards(tmp_path / "shards")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("lacking", r"does not import \(ModuleNotFoundError: No module named 'a_package_that_is"),
        ("failing", r"does not import \(RuntimeError: no licence was found\)"),
        ("emptied", r"does not import \(AttributeError: .*'Method'"),
        ("mistaken", r"leads to <built-in function print>; a subclass of .*FewShotMethod was"),
        ("partial", r"leads to FewShotMethod, which does not define prepare and score; a whole"),
    ],
)
def test_a_broken_method_is_refused_in_one_line_that_names_its_entry_point(name, cause):
    done = CliRunner().invoke(cli.app, ["evaluate", "--method", name])
    assert done.exit_code == BackendError.exit_code
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: method {name!r} is broken: its entry point ")
    assert name in ("mistaken", "partial") or f"entry point plugged_{name}:Method does" in line
    assert re.search(cause, line)
    assert line.endswith("or pass another method")


def test_debug_shows_the_traceback_of_the_broken_package():
    words = ["--debug", "evaluate", "--method", "failing"]
    fault = CliRunner().invoke(cli.app, words).exception
    assert isinstance(fault, BackendError)
    assert isinstance(fault.__cause__, RuntimeError)


def test_other_methods_work_and_a_miss_marks_the_broken_ones():
    assert get_method("sound").name == "random"
    assert get_method("protonet").name == "protonet"
    with pytest.raises(BackendError, match="unknown method 'soundd'") as found:
        get_method("soundd")
    known = str(found.value).partition("known: ")[2].partition(";")[0].split(", ")
    assert [one for one in known if one.endswith(" (broken)")] == [
        "emptied (broken)",
        "failing (broken)",
        "lacking (broken)",
    ]
    assert {"sound", "protonet"} <= set(known)


def test_a_broken_encoder_is_refused_alike():
    with pytest.raises(BackendError, match="encoder 'lacking' is broken: its entry point plugged_"):
        get_encoder("lacking:model")
