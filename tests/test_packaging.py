"""What an installed i2st owns, and how light its command is."""

import configparser
import resource
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import data_manifests

TOP_LEVEL = {"cli.py", "data_manifests", "i2st_model", "pipeline"}
HEAVY = ("torch", "h5py", "dask", "open_clip", "decord", "av", "numpy", "segment_anything", "timm")


def test_setup_cfg_lists_every_package(repository):
    config = configparser.ConfigParser()
    config.read(repository / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    present = {
        str(path.parent.relative_to(repository)).replace("/", ".")
        for top in ("data_manifests", "i2st_model", "pipeline")
        for path in (repository / top).rglob("__init__.py")
    }
    assert listed == present


def test_wheel_owns_exactly_the_four_top_level_names(repository, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "--quiet", str(repository), str(copy)], check=True)
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(copy)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {Path(name).parts[0] for name in names if ".dist-info" not in name} == TOP_LEVEL
    assert {f"data_manifests/{name}.yaml" for name in data_manifests.names()} <= set(names)
    assert wheel.stat().st_size < 1_000_000


def test_console_script_points_at_the_cli():
    scripts = [entry for entry in entry_points(group="console_scripts") if entry.name == "i2st"]
    assert [script.value for script in scripts] == ["cli:main"]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"]])
def test_help_and_version_import_nothing_heavy(arguments):
    program = (
        "import sys, cli\n"
        f"sys.argv = ['i2st', *{arguments!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as exit:\n    assert not exit.code, exit.code\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "i2st" in done.stdout


def test_help_takes_less_than_a_third_of_a_second():
    # CPU seconds, and the best of five: the clock of a shared machine says more about its others.
    program = "import sys, cli; sys.argv = ['i2st', '--help']; cli.main()"

    def cpu_seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert "evaluate" in done.stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(cpu_seconds() for _ in range(5)) < 0.3
