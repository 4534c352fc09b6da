"""Extraction under faults: bad videos, kills, signals, full disks. The digest stays the same."""

import errno
import os
import random
import signal
import time

import extraction_fakes as fakes
import psutil
import pytest

from pipeline.errors import ConfigError, ResourceError
from pipeline.extract import extract
from pipeline.shards.failpoints import FAILPOINTS
from pipeline.shards.lock import FolderLock

SEVERAL_KILLS = 4
MANY_KILLS = 200


@pytest.fixture(autouse=True)
def fake_backends(tmp_path, monkeypatch, repository):
    fakes.add_entry_points(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")


@pytest.fixture
def videos_root(tmp_path):
    return tmp_path / "videos"


def run(folder, **changes):
    """Extract in this process, to the end."""
    manifest, videos = fakes.read_dataset(folder / "videos")
    config = fakes.config(folder / "videos", folder / "out", **changes)
    return extract(config, manifest, videos)


def shard_bytes(folder):
    return {path.name: path.read_bytes() for path in sorted((folder / "out").glob("*.h5"))}


def undisturbed(folder, **changes):
    """Digest and shards of a run that nothing disturbs, in a folder beside."""
    manifest, videos = fakes.read_dataset(folder / "videos")
    calm = folder / "calm"
    report = extract(fakes.config(folder / "videos", calm / "out", **changes), manifest, videos)
    (folder / "videos" / "decoded.log").unlink()
    return report.digest, shard_bytes(calm)


def start(folder, *, environment=None, **changes):
    """Begin an extraction in another process; returns it once it has begun to work."""
    (folder / "started").unlink(missing_ok=True)
    process = fakes.run_in_child(
        folder, changes, {"PYTHONPATH": str(folder / "site"), **(environment or {})}
    )
    deadline = time.monotonic() + 60
    while not (folder / "started").exists() and process.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


def killed(process):
    """SIGKILL the process and all it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.join(20)
    return process.exitcode == -signal.SIGKILL


FAULTS = {
    "clap/01": ("raise", "undecodable"),
    "clap/03": ("short", "short"),
    "jump/00": ("white", "nonfinite"),
    "jump/04": ("black", "nonfinite"),
    "run/02": ("grey", "nonfinite"),
    "wave/00": ("crash", "crashed"),
    "wave/04": ("hang", "timeout"),
}


def test_extract_loses_one_video_per_bad_video(videos_root, tmp_path):
    does = {video_id: what for video_id, (what, _) in FAULTS.items()}
    manifest, videos = fakes.make_dataset(videos_root, does=does)
    (videos_root / "run/04.json").unlink()
    config = fakes.config(
        videos_root, tmp_path / "out", decode_children=1, decode_timeout_seconds=2.0
    )
    report = extract(config, manifest, videos)
    reasons = {failure.video_id: failure.reason for failure in report.failures}
    expected = {video_id: reason for video_id, (_, reason) in FAULTS.items()}
    assert reasons == {**expected, "run/04": "missing"}
    assert (report.num_done, report.num_new) == (12, 12)
    good, good_videos = fakes.make_dataset(tmp_path / "good", per_class=5)
    good_videos = [video for video in good_videos if video.video_id not in reasons]
    alone = extract(fakes.config(tmp_path / "good", tmp_path / "alone"), good, good_videos)
    assert report.digest == alone.digest


def test_extract_remembers_failures_until_it_is_to_try_again(videos_root, tmp_path):
    fakes.make_dataset(videos_root, does={"jump/01": "raise"})
    first = run(tmp_path)
    assert [failure.video_id for failure in first.failures] == ["jump/01"]
    fakes.make_dataset(videos_root)
    second = run(tmp_path)
    assert (second.num_new, second.failures) == (0, first.failures)
    third = run(tmp_path, retry_failed=True)
    assert (third.num_new, third.failures) == (1, ())
    assert third.digest == undisturbed(tmp_path)[0]


def test_extract_ends_with_no_video_at_all(videos_root, tmp_path):
    manifest, videos = fakes.make_dataset(videos_root, per_class=1)
    for video in videos:
        (videos_root / video.path).unlink()
    report = extract(fakes.config(videos_root, tmp_path / "out"), manifest, videos)
    assert (report.num_done, len(report.failures)) == (0, 4)


def kill_and_go_on(folder, number_of_kills, **changes):
    """Kill runs at random moments, then let one end; return its digest and shards."""
    moments = random.Random(7)
    kills = 0
    while kills < number_of_kills:
        process = start(folder, **changes)
        process.join(moments.uniform(0.0, 0.4))
        kills += killed(process) if process.is_alive() else 0
        if process.exitcode == 0:
            # It came to the end: begin again, so that all moments of a run are met.
            assert shard_bytes(folder)
            for path in (folder / "out").iterdir():
                path.unlink()
    report = run(folder, **changes)
    return report.digest, shard_bytes(folder)


@pytest.mark.parametrize(
    "number_of_kills",
    [SEVERAL_KILLS, pytest.param(MANY_KILLS, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
@pytest.mark.parametrize("decode_children", [0, 1])
def test_extract_gives_the_same_bytes_after_kills_at_random_moments(
    videos_root, tmp_path, number_of_kills, decode_children
):
    fakes.make_dataset(videos_root, does={"jump/01": "slow", "run/02": "raise", "wave/03": "slow"})
    settings = {"shard_videos": 3, "decode_children": decode_children}
    expected = undisturbed(tmp_path, **settings)
    assert kill_and_go_on(tmp_path, number_of_kills, **settings) == expected


def test_extract_loses_at_most_one_shard_of_work_to_a_kill(videos_root, tmp_path):
    _, videos = fakes.make_dataset(videos_root, does={f"wave/{n:02d}": "slow" for n in range(5)})
    process = start(tmp_path, shard_videos=2)
    log = videos_root / "decoded.log"
    while not log.exists() or "wave/02" not in log.read_text():
        time.sleep(0.002)
    assert killed(process)
    run(tmp_path, shard_videos=2)
    times = log.read_text().split()
    assert len(videos) <= len(times) <= len(videos) + 2
    assert set(times) == {video.video_id for video in videos}


FEW_FAILPOINTS = ("shard.half_written", "shard.folder_fsynced", "sidecar.renamed", "index.written")


@pytest.mark.parametrize(
    "failpoints",
    [FEW_FAILPOINTS, pytest.param(tuple(FAILPOINTS), marks=pytest.mark.slow)],
    ids=["some", "all"],
)
def test_extract_gives_the_same_bytes_after_a_kill_at_each_failpoint(
    videos_root, tmp_path, failpoints
):
    fakes.make_dataset(videos_root)
    expected = undisturbed(tmp_path)
    for failpoint in failpoints:
        process = start(tmp_path, environment={"I2ST_FAILPOINT": f"{failpoint}:kill"})
        process.join(60)
        assert process.exitcode == -signal.SIGKILL, failpoint
        report = run(tmp_path)
        assert (report.digest, shard_bytes(tmp_path)) == expected, failpoint
        assert not list((tmp_path / "out").glob("*.tmp")), failpoint
        for path in (tmp_path / "out").iterdir():
            path.unlink()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_extract_finishes_the_shard_in_hand_on_a_signal(videos_root, tmp_path, number, code):
    names = [f"{name}/{n:02d}" for name in ("clap", "jump", "run", "wave") for n in range(5)]
    fakes.make_dataset(videos_root, does=dict.fromkeys(names, "slow"))
    expected = undisturbed(tmp_path, shard_videos=4)
    process = start(tmp_path, shard_videos=4, decode_children=1)
    while len(list((tmp_path / "out").glob("*.h5"))) < 1:
        time.sleep(0.002)
    # The whole group, as a terminal's Ctrl-C does it.
    os.killpg(process.pid, number)
    process.join(5)
    assert process.exitcode == code
    assert not (tmp_path / "out" / "index.json").exists()
    num_shards = len(shard_bytes(tmp_path))
    assert 1 <= num_shards < 5
    report = run(tmp_path, shard_videos=4)
    assert report.num_new == 20 - 4 * num_shards
    assert (report.digest, shard_bytes(tmp_path)) == expected


def test_extract_stops_at_once_on_a_second_signal_and_leaves_no_process(videos_root, tmp_path):
    fakes.make_dataset(videos_root, does={"clap/00": "hang"})
    process = start(tmp_path, decode_children=1)
    while not (videos_root / "decoded.log").exists():
        time.sleep(0.002)
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(0.2)
    assert process.is_alive()
    os.kill(process.pid, signal.SIGTERM)
    process.join(5)
    assert process.exitcode == 143
    _, alive = psutil.wait_procs(children, timeout=5)
    assert alive == []
    assert shard_bytes(tmp_path) == {}


def test_extract_survives_the_death_of_a_worker(videos_root, tmp_path):
    names = [f"{name}/{n:02d}" for name in ("clap", "jump", "run", "wave") for n in range(5)]
    fakes.make_dataset(videos_root, does=dict.fromkeys(names, "slow"))
    expected = undisturbed(tmp_path, shard_videos=2)
    process = start(tmp_path, shard_videos=2, workers=2)
    while not (videos_root / "decoded.log").exists():
        time.sleep(0.002)
    workers = [
        p for p in psutil.Process(process.pid).children() if "spawn_main" in str(p.cmdline())
    ]
    workers[0].kill()
    process.join(60)
    assert process.exitcode == 0
    report = run(tmp_path, shard_videos=2)
    assert (report.num_new, report.digest, shard_bytes(tmp_path)) == (0, *expected)


def test_extract_refuses_a_folder_that_is_in_use(videos_root, tmp_path):
    fakes.make_dataset(videos_root)
    with FolderLock(tmp_path / "out"), pytest.raises(ConfigError, match=f"PID {os.getpid()}"):
        run(tmp_path)


def test_extract_keeps_finished_shards_when_the_disk_is_full(videos_root, tmp_path, monkeypatch):
    fakes.make_dataset(videos_root)
    expected = undisturbed(tmp_path)
    real_write, shards = os.write, []

    def write(descriptor, data):
        name = os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))
        shards.append(name)
        if name == "shard-00001.h5.tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real_write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.shards.files.os.write", write)
        with pytest.raises(ResourceError, match=r"no room for .*shard-00001.h5.*bytes are free"):
            run(tmp_path)
    assert sorted(path.suffix for path in (tmp_path / "out").glob("shard*")) == [".h5", ".json"]
    report = run(tmp_path)
    assert (report.num_new, report.digest, shard_bytes(tmp_path)) == (13, *expected)


def test_extract_names_the_remedy_when_memory_runs_out(videos_root, tmp_path, monkeypatch):
    fakes.make_dataset(videos_root)

    def encode(self, views):
        raise MemoryError("8 GiB")

    monkeypatch.setattr(fakes.FakeEncoder, "encode", encode)
    with pytest.raises(ResourceError, match=r"memory ran out \(8 GiB\); lower shard_videos=7"):
        run(tmp_path)
