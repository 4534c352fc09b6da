"""Extraction in a hostile world, where calls fail, names are odd and clocks jump: same digest."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import extraction_fakes as fakes
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import cli
from pipeline.errors import ConfigError
from pipeline.extract import extract
from pipeline.shards.index import ShardIndex
from pipeline.shards.lock import FolderLock

YEAR_SECONDS = 365 * 86400
OVERCOME = ("EINTR", "short")
DENIED = r"Permission denied\); .*pass another --out"


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory, repository):
    """Library that fails calls on demand."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("gcc on Linux is needed to fail system calls")
    library = tmp_path_factory.mktemp("world") / "world_faults.so"
    source = repository / "tests" / "world_faults.c"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode:
        pytest.skip(f"the library does not compile here: {built.stderr[:200]}")
    return library


def run_child(library, folder, what, repository, **environment):
    """Run world_child.py and return what it prints."""
    paths = [str(folder / "site"), str(repository / "tests"), str(repository)]
    result = subprocess.run(
        [sys.executable, str(repository / "tests" / "world_child.py"), str(folder), what],
        env={
            **os.environ,
            "LD_PRELOAD": str(library),
            "PYTHONPATH": os.pathsep.join(paths),
            **environment,
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def calm(folder):
    """Report of an undisturbed run over the same videos, beside."""
    manifest, videos = fakes.read_dataset(folder / "videos")
    config = fakes.config(folder / "videos", folder / "calm", shard_videos=4)
    return extract(config, manifest, videos)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, preloaded, repository):
    """What came of a run under each fault; all in one process, which is slow to start."""
    folder = tmp_path_factory.mktemp("faults")
    fakes.add_entry_points(folder / "site")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "site")
        fakes.make_dataset(folder / "videos", per_class=2)
        digest = calm(folder).digest
        return digest, run_child(preloaded, folder, "all_faults", repository)


@pytest.mark.parametrize(
    "call",
    [
        "write",
        "fsync",
        "rename",
        "create",
        "read",
    ],
)
def test_extract_ends_with_code_5_when_a_call_fails_and_goes_on_from_there(outcomes, call):
    digest, results = outcomes
    failed = [one for one in results if one["call"] == call and one["error"] not in OVERCOME]
    assert len(failed) >= 3
    for one in failed:
        assert one["faulty"].get("exit_code") == 5, one
        assert "\n" not in one["faulty"]["message"], one
        assert one["healthy"].get("digest") == digest, one
        assert (one["problems"], one["left"]) == ([], []), one


@pytest.mark.parametrize("call", ["write", "fsync", "create", "read"])
def test_extract_overcomes_interrupted_calls_and_calls_that_move_few_bytes(outcomes, call):
    digest, results = outcomes
    overcome = [one for one in results if one["call"] == call and one["error"] in OVERCOME]
    assert overcome
    for one in overcome:
        assert one["num_calls"] > 0, one
        assert one["faulty"].get("digest") == digest, one
        assert (one["problems"], one["left"]) == ([], []), one


@pytest.mark.parametrize("seed", ["0", "12345"])
def test_extract_does_not_depend_on_clock_zone_language_umask_folder_or_hash_seed(
    fake_backends, tmp_path, preloaded, repository, seed
):
    fakes.make_dataset(tmp_path / "videos", per_class=2)
    digest = calm(tmp_path).digest
    result = run_child(
        preloaded,
        tmp_path,
        "elsewhere",
        repository,
        TZ="Pacific/Kiritimati",
        LANG="C",
        LC_ALL="C",
        PYTHONHASHSEED=seed,
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
    )
    assert result["seconds"] < -YEAR_SECONDS / 2, "the clock did not jump"
    assert result["digest"] == digest
    names = ("index.json", "shard-00000.h5", "shard-00001.h5")
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


def write_clips(folder, names):
    """Clips as folders of two frames each, different for every name."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for frame in range(2):
            picture = np.zeros((24, 32, 3), np.uint8)
            picture[..., 0] = np.arange(32) * 7 + 20 * frame
            picture[..., 1] = (np.arange(24) * (5 + number))[:, None]
            Image.fromarray(picture).save(folder / name / f"{frame}.png")


def extract_by_command(videos, out, *flags):
    words = ["extract", "--videos", videos, "--out", out, "--segmenter", "none", "--frames", "2"]
    words += ["--encoder", "efficientnet-lite0", *flags]
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def tree(folder):
    """Everything below a folder: names, and what files hold."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


ODD_CLASSES = ("clap hands", "na\u00efve \U0001f938", 'it\'s "quoted" & $HOME;', "100% {x} [y]")
LONGEST = "n" * (255 - len("clap hands/"))


def test_extract_takes_any_printable_name(tmp_path, monkeypatch):
    names = [f"{name}/{clip}" for name in ODD_CLASSES for clip in ("\u62cd\u624b 1", "-dash", "%s")]
    names.append(f"clap hands/{LONGEST}")
    videos = tmp_path / "my 'videos' \U0001f3a5"
    write_clips(videos, names)
    result = extract_by_command(videos, tmp_path / "out \u00fc" / "a" / "b", "--json")
    assert result.exit_code == 0, result.output
    index = ShardIndex.load(tmp_path / "out \u00fc" / "a" / "b")
    assert sorted(video.video_id for video in index.videos) == sorted(names)
    monkeypatch.chdir(videos)
    again = extract_by_command(".", tmp_path / ("o" * 255), "--json")
    assert json.loads(again.stdout)["digest"] == index.digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clap/line\nbreak", "printable"),
        ("clap/tab\there", "printable"),
        ("clap/\u202egpj.exe", "printable"),
        ("clap/\x1b[31mred", "printable"),
        ("clap/" + "n" * 251, "has 256 bytes"),
    ],
)
def test_extract_refuses_names_that_would_not_print_or_fit_and_writes_nothing(
    tmp_path, name, message
):
    write_clips(tmp_path / "videos", ["clap/good", "jump/good", "wave/good", name])
    before = tree(tmp_path)
    result = extract_by_command(tmp_path / "videos", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert line.isprintable()
    assert tree(tmp_path) == before


def test_extract_keeps_classes_apart_that_differ_in_case_alone(tmp_path):
    names = ["clap/a", "Clap/a", "CLAP/A", "clap/A", "jump/a"]
    write_clips(tmp_path / "videos", names)
    result = extract_by_command(tmp_path / "videos", tmp_path / "out")
    assert result.exit_code == 0, result.output
    index = ShardIndex.load(tmp_path / "out")
    assert sorted(video.video_id for video in index.videos) == sorted(names)
    assert len({video.sha256 for video in index.videos}) == len(names)


@pytest.mark.parametrize(
    "out",
    ["file", "file/below", "/proc/i2st", "o" * 256, "link-to-nothing/x", "videos/clap/a/0.png"],
)
def test_extract_refuses_a_place_that_it_cannot_write_and_writes_nothing(tmp_path, out):
    write_clips(tmp_path / "videos", ["clap/a", "jump/a", "wave/a"])
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link-to-nothing").symlink_to("/proc/absent")
    before = tree(tmp_path)
    result = extract_by_command(tmp_path / "videos", tmp_path / out)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "pass another --out" in line
    assert tree(tmp_path) == before


def test_extract_refuses_a_folder_without_write_permission():
    # Beside pytest's folders, which only their owner may enter.
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with as_somebody_without_privileges(), pytest.raises(ConfigError, match=DENIED):
            FolderLock(Path(folder) / "out").__enter__()
        assert os.listdir(folder) == []


@contextmanager
def as_somebody_without_privileges():
    """Root may write everywhere, so root steps down for a while."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
