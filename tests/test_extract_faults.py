"""Extraction under faults: bad videos, kills, signals, full disks. The digest stays the same."""

import contextlib
import errno
import os
import random
import signal
import time
from collections import Counter

import extraction_fakes as fakes
import psutil
import pytest

from pipeline.errors import ConfigError, ResourceError
from pipeline.extract import extract
from pipeline.shards.failpoints import FAILPOINTS
from pipeline.shards.index import ShardIndex
from pipeline.shards.lock import FolderLock

pytestmark = pytest.mark.usefixtures("fake_backends")

SEVERAL_KILLS = 4
MANY_KILLS = 200


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
    "wave/00": ("crash", "poison"),
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


def test_extract_loses_only_the_shards_in_hand_to_a_kill(videos_root, tmp_path):
    _, videos = fakes.make_dataset(videos_root, does={f"wave/{n:02d}": "slow" for n in range(5)})
    process = start(tmp_path, shard_videos=2, hands=1)
    log = videos_root / "decoded.log"
    while not log.exists() or "wave/02" not in log.read_text():
        time.sleep(0.002)
    assert killed(process)
    run(tmp_path, shard_videos=2)
    times = log.read_text().split()
    # One shard in hand, one that has come back, one that is being written.
    assert len(videos) <= len(times) <= len(videos) + 3 * 2
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


@pytest.mark.parametrize(
    ("workers", "number", "send"),
    [
        # Ctrl-C of a terminal reaches the whole group.
        (0, signal.SIGTERM, os.killpg),
        (0, signal.SIGINT, os.killpg),
        (2, signal.SIGTERM, os.killpg),
        (2, signal.SIGINT, os.killpg),
    ],
)
def test_extract_finishes_the_shards_in_hand_on_a_signal(
    videos_root, tmp_path, workers, number, send
):
    names = [f"{name}/{n:02d}" for name in ("clap", "jump", "run", "wave") for n in range(15)]
    fakes.make_dataset(videos_root, per_class=15, does=dict.fromkeys(names, "slow"))
    # Two portions to a shard: a shard in hand has one that no hand holds yet.
    layout = {"shard_videos": 4, "batch_frames": 8}
    expected = undisturbed(tmp_path, **layout)
    # On a busy machine what is in hand takes longer than a user would wait.
    grace = {"I2ST_FAKE_GRACE": "60"}
    settings = {**layout, "decode_children": 1, "workers": workers, "hands": 2}
    process = start(tmp_path, environment=grace, **settings)
    while len(list((tmp_path / "out").glob("*.h5"))) < 1:
        time.sleep(0.002)
    send(process.pid, number)
    process.join(90)
    assert process.exitcode == 128 + number
    assert not (tmp_path / "out" / "index.json").exists()
    num_shards = len(shard_bytes(tmp_path))
    assert 1 <= num_shards < 15
    times = Counter((videos_root / "decoded.log").read_text().split())
    assert len(times) == 4 * num_shards
    report = run(tmp_path, **layout)
    assert report.num_new == 60 - 4 * num_shards
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


def start_with_workers(folder, **changes):
    log = folder / "workers.log"
    log.unlink(missing_ok=True)
    return start(folder, environment={"I2ST_FAKE_PIDS": str(log)}, **changes)


def workers_of(folder):
    """Those of the run's processes that have loaded a worker's models and still live."""
    log = folder / "workers.log"
    pids = {int(line) for line in log.read_text().split()} if log.exists() else set()
    return [pid for pid in sorted(pids) if psutil.pid_exists(pid)]


def kill_workers_until_it_ends(folder, process, every_seconds, most=10**9):
    """SIGKILL one of the run's workers again and again; returns how many."""
    moments = random.Random(11)
    kills = 0
    deadline = time.monotonic() + 600
    while process.is_alive() and kills < most:
        assert time.monotonic() < deadline
        process.join(every_seconds)
        alive = workers_of(folder)
        if process.is_alive() and alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(moments.choice(alive), signal.SIGKILL)
                kills += 1
    (folder / "videos" / "held").unlink(missing_ok=True)
    process.join(120)
    return kills


@pytest.mark.parametrize(
    ("per_class", "most_kills"),
    [
        (20, 3),
        pytest.param(200, 10**9, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
    ids=["some", "until it ends"],
)
def test_extract_survives_a_killer_of_workers(videos_root, tmp_path, per_class, most_kills):
    names = [
        f"{name}/{n:02d}" for name in ("clap", "jump", "run", "wave") for n in range(per_class)
    ]
    fakes.make_dataset(videos_root, per_class=per_class, does=dict.fromkeys(names, "slow"))
    layout = {"shard_videos": 10, "batch_frames": 4}
    expected = undisturbed(tmp_path, **layout, decode_children=4, hands=8)
    if most_kills == 3:
        # However fast the machine is, the last videos are not read before the third kill.
        (videos_root / "held").write_text("wave")
    process = start_with_workers(tmp_path, **layout, workers=2, hands=2)
    kills = kill_workers_until_it_ends(tmp_path, process, 0.5, most_kills)
    assert process.exitcode == 0
    assert kills >= 3
    assert read_index(tmp_path).failures == ()
    assert (read_index(tmp_path).digest, shard_bytes(tmp_path)) == expected
    # A killed worker takes with it no more than the videos in its two hands.
    times = (videos_root / "decoded.log").read_text().split()
    assert len(times) <= 4 * per_class + kills * 2


def read_index(folder):
    return ShardIndex.load(folder / "out")


def test_extract_records_a_video_that_kills_every_worker_as_poison(videos_root, tmp_path):
    fakes.make_dataset(videos_root, does={"jump/02": "deadly"})
    report = run(tmp_path, workers=2, shard_videos=7)
    assert [(f.video_id, f.reason) for f in report.failures] == [("jump/02", "poison")]
    assert report.num_done == 19
    (videos_root / "jump/02.json").unlink()
    good = fakes.read_dataset(videos_root)
    assert extract(fakes.config(videos_root, tmp_path / "good"), *good).digest == report.digest


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
            run(tmp_path, hands=1)
    assert sorted(path.suffix for path in (tmp_path / "out").glob("shard*")) == [".h5", ".json"]
    report = run(tmp_path)
    assert (report.num_new, report.digest, shard_bytes(tmp_path)) == (13, *expected)


def test_extract_names_the_remedy_when_memory_runs_out(videos_root, tmp_path, monkeypatch):
    fakes.make_dataset(videos_root)

    def encode(self, views):
        raise MemoryError("8 GiB")

    monkeypatch.setattr(fakes.FakeEncoder, "encode", encode)
    with pytest.raises(ResourceError, match=r"memory ran out \(8 GiB\); lower batch_frames=64"):
        run(tmp_path)
