import os
import signal
import subprocess
import sys
import textwrap
import time
from importlib.util import find_spec
from io import BytesIO

import numpy as np
import pytest
from make_videos import form, scene, write_video
from PIL import Image

from pipeline.decoding import read_clip
from pipeline.decoding.children import DecodeChildren
from pipeline.decoding.types import DecodedClip
from pipeline.decoding.wire import receive_result, send_result
from pipeline.errors import BackendError, ConfigError, VideoError

needs_decord = pytest.mark.skipif(
    find_spec("decord") is None, reason="decord has no wheel for this platform"
)
posix_only = pytest.mark.skipif(os.name != "posix", reason="needs signals")

# Decoders as another package would add them: an installed entry point, so that children, which are
# processes of their own, find them too.
FAKES = """
import ctypes, os, signal, time
import numpy as np
from pathlib import Path
from pipeline.decoding.types import DecodedClip
from pipeline.errors import VideoError

class Fake:
    name = "fake"
    def __init__(self, *, max_pixels):
        self.calls = 0
    def version(self):
        return "fake 1"
    def read(self, path, choose):
        words = path.read_text().split()
        self.calls += 1
        with open(str(path) + ".log", "a") as log:
            log.write(f"{os.getpid()} {self.calls}\\n")
        if words[0] == "sleep":
            time.sleep(float(words[1]))
        if words[0] == "hold":  # the interpreter's lock, as decord does in its endless loop
            ctypes.PyDLL(None).sleep(int(words[1]))
        if words[0] == "die" or (words[0] == "die_once" and not Path(str(path) + ".died").exists()):
            Path(str(path) + ".died").touch()
            os.kill(os.getpid(), getattr(signal, words[1]))
        if words[0] == "exit":
            os._exit(7)
        if words[0] == "refuse":
            raise VideoError("masks", "refused: \\u00e4 \\udcff")
        if words[0] == "raise":
            raise ZeroDivisionError("two\\nlines")
        if words[0] == "memory":
            raise MemoryError("asked for much")
        if words[0] == "print":
            print("noise between the answers", flush=True)
            os.write(1, b"more noise")
        indices = np.asarray(choose(100))
        return DecodedClip(
            frames=np.full((len(indices), 2, 3, 3), len(words[-1]), np.uint8),
            frame_indices=indices, num_frames_decoded=100, num_frames_expected=100,
            num_damaged_packets=0)
"""


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    site = tmp_path / "site"
    info = site / "i2st_fake_decoders-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "i2st_fake_decoders.py").write_text(FAKES)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: i2st-fake-decoders\nVersion: 1.0\n"
    )
    (info / "entry_points.txt").write_text("[i2st.decoders]\nfake = i2st_fake_decoders:Fake\n")
    monkeypatch.syspath_prepend(str(site))

    def write(*contents):
        paths = []
        for number, content in enumerate(contents):
            path = tmp_path / f"video{number}"
            path.write_text(content)
            paths.append(path)
        return paths

    return write


def outcome(result):
    """What a result says, for comparison."""
    if isinstance(result, VideoError):
        return result.reason, str(result)
    fields = (result.num_frames_decoded, result.num_frames_expected, result.num_damaged_packets)
    return (*fields, result.frame_indices.tolist(), result.frames.shape, result.frames.tobytes())


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """Good, odd and bad videos, in an order that mixes them."""
    folder = tmp_path_factory.mktemp("videos")
    good = [
        write_video(folder / f"{n}.avi", scene(8 + n, 32 + 2 * n, 48), form("mpeg4_avi"))
        for n in range(6)
    ]
    bad = folder / "bad.mp4"
    bad.write_text("no video")
    short = folder / "short.avi"
    short.write_bytes(good[5].read_bytes()[:6000])
    return [good[0], bad, good[1], good[2], folder / "absent.avi", good[3], short, *good[3:]]


@pytest.mark.parametrize("num_children", [0, 1, 2, 3])
def test_answers_come_in_order_and_do_not_depend_on_the_number_of_children(paths, num_children):
    expected = []
    for path in paths:
        try:
            expected.append(outcome(read_clip(path)))
        except VideoError as error:
            expected.append(outcome(error))
    with DecodeChildren(num_children) as children:
        assert [outcome(result) for result in children.read_many(paths)] == expected
        # The same children serve a second round.
        assert [outcome(result) for result in children.read_many(paths[:3])] == expected[:3]
    assert {"undecodable", "missing", "short"} <= {answer[0] for answer in expected}


def test_settings_reach_the_children(paths):
    with DecodeChildren(1, "pyav", "uniform_endpoints", 3, 60.0, 0.0, 32 * 48) as children:
        first, second = children.read_many([paths[0], paths[2]])
    assert first.frame_indices.tolist() == [0, 4, 7]
    assert second.reason == "too_large"


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=needs_decord)])
@pytest.mark.parametrize("codec", ["mpeg4_avi", "h264_mp4", "folder"])
def test_frames_of_several_phases_are_those_of_each_phase_alone(tmp_path, decoder, codec):
    pictures, path = scene(23), tmp_path / "video"
    if codec == "folder":
        path.mkdir()
        for number, picture in enumerate(pictures):
            Image.fromarray(picture).save(path / f"{number}.png")
    else:
        path = write_video(path.with_suffix(form(codec).suffix), pictures, form(codec))
    phases = (0.0, 0.25, -0.25)
    with DecodeChildren(1, decoder, num_frames=4, phases=phases) as children:
        (clip,) = children.read_many([path])
    parts = clip.split(3)
    # Segments of 23/4 frames: centres 2.9, 8.6, 14.4, 20.1; a quarter of one is 1.4 frames.
    expected = [[2, 8, 14, 20], [4, 10, 15, 21], [1, 7, 12, 18]]
    assert [part.frame_indices.tolist() for part in parts] == expected
    alone = read_clip(path, decoder, count=4)
    np.testing.assert_array_equal(parts[0].frames, alone.frames)
    every = read_clip(path, decoder, "uniform_endpoints", 23).frames
    for part in parts:
        np.testing.assert_array_equal(part.frames, every[part.frame_indices])
        assert (part.num_frames_decoded, part.num_frames_expected) == (23, 23)


def test_frames_of_several_phases_may_each_be_as_large_as_allowed(tmp_path):
    path = tmp_path / "clip"
    path.mkdir()
    for number, picture in enumerate(scene(6, 10, 12)):
        Image.fromarray(picture).save(path / f"{number}.png")
    options = {"num_frames": 2, "phases": (0.0, -0.25, 0.25), "max_pixels": 120}
    with DecodeChildren(1, **options) as children:
        (clip,) = children.read_many([path])
    assert clip.frames.shape == (6, 10, 12, 3)


def test_frames_of_other_phases_do_not_decide_the_size_of_a_clip(tmp_path):
    path = tmp_path / "clip"
    path.mkdir()
    for number in range(8):
        size = (20, 16) if number < 2 else (12, 10)
        Image.new("RGB", size, (30 * number,) * 3).save(path / f"{number}.png")
    # Segments of 4 frames: the centres are 2 and 6, a quarter of a segment before them 1 and 5.
    with DecodeChildren(0, num_frames=2, phases=(0.0, -0.25)) as children:
        (clip,) = children.read_many([path])
    assert clip.frame_indices.tolist() == [2, 6, 1, 5]
    np.testing.assert_array_equal(clip.split(2)[0].frames, read_clip(path, count=2).frames)


def test_a_child_imports_neither_torch_nor_another_decoder(repository):
    program = (
        "import sys; import pipeline.decoding.child; from pipeline.decoding import get_decoder\n"
        "get_decoder('pyav'); print(sorted({'torch', 'h5py', 'decord', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=repository, capture_output=True)
    assert done.stdout.strip() == b"[]"


@posix_only
@pytest.mark.parametrize("how", ["sleep", "hold"])
def test_a_hanging_video_is_killed_at_the_timeout_and_the_others_are_whole(fakes, how):
    contents = ["ok"] * 4 + [f"{how} 600"] + ["ok"] * 4
    with DecodeChildren(2, "fake", timeout_seconds=1.0) as children:
        start = time.monotonic()
        results = list(children.read_many(fakes(*contents)))
        seconds = time.monotonic() - start
    assert [isinstance(r, VideoError) for r in results] == [n == 4 for n in range(9)]
    assert results[4].reason == "timeout"
    assert "still decoding after 1 s; replace the file or raise `--decode-timeout`" in str(
        results[4]
    )
    assert 1.0 <= seconds < 10.0


@posix_only
@pytest.mark.parametrize(
    ("content", "end"),
    [("die SIGSEGV", "signal SIGSEGV"), ("die SIGKILL", "signal SIGKILL"), ("exit", "status 7")],
)
def test_a_crash_costs_one_video_and_two_processes(fakes, content, end):
    videos = fakes("ok", content, "ok", "ok")
    with DecodeChildren(1, "fake") as children:
        results = list(children.read_many(videos))
    assert results[1].reason == "poison"
    assert f"ended 2 decoding processes, the last with {end}" in str(results[1])
    log = (videos[1].parent / (videos[1].name + ".log")).read_text().split()
    assert len(set(log[::2])) == 2
    assert all(isinstance(results[n], DecodedClip) for n in (0, 2, 3))


@posix_only
def test_a_video_is_tried_again_when_its_child_died_of_something_else(fakes):
    with DecodeChildren(1, "fake") as children:
        (result,) = children.read_many(fakes("die_once SIGKILL"))
    assert isinstance(result, DecodedClip)


def test_errors_round_trip_with_their_reason(fakes):
    videos = fakes("refuse", "raise", "memory")
    with DecodeChildren(0, "fake") as here, DecodeChildren(1, "fake") as children:
        expected = [outcome(result) for result in here.read_many(videos)]
        assert [outcome(result) for result in children.read_many(videos)] == expected
    reasons = [reason for reason, _ in expected]
    assert reasons == ["masks", "undecodable", "oom"]
    assert expected[0][1] == "refused: \u00e4 \udcff"
    assert "(ZeroDivisionError: two lines)" in expected[1][1]


def test_what_a_decoder_prints_does_not_reach_the_answers(fakes, capfd):
    with DecodeChildren(1, "fake") as children:
        results = list(children.read_many(fakes("print", "ok")))
    assert all(isinstance(result, DecodedClip) for result in results)


def test_no_more_videos_are_read_ahead_than_two_per_child(fakes, tmp_path):
    videos = fakes(*["ok"] * 12)
    with DecodeChildren(2, "fake") as children:
        answers = children.read_many(videos)
        next(answers)
        time.sleep(0.5)
        begun = len(list(tmp_path.glob("video*.log")))
        assert 1 <= begun <= 5
        answers.close()
        # Leaving early leaves the children usable.
        assert len(list(children.read_many(videos[:2]))) == 2


@posix_only
def test_closing_ends_a_busy_child_at_once(fakes):
    videos = fakes("ok", "sleep 600", "sleep 600")
    start = time.monotonic()
    with DecodeChildren(2, "fake") as children:
        next(children.read_many(videos))
        log = videos[1].parent / (videos[1].name + ".log")
        assert wait_until(lambda: log.exists() and log.read_text())
    assert time.monotonic() - start < 15
    assert not is_running(int(log.read_text().split()[0]))


PARENT = """
import signal, sys, time
from pathlib import Path
from pipeline.decoding.children import DecodeChildren
# A shell's background job ignores Ctrl-C, and so would what it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
with DecodeChildren(2, "fake", timeout_seconds=float(sys.argv[1])) as children:
    for result in children.read_many([Path(p) for p in sys.argv[2:]]):
        print(result, flush=True)
    print("waiting", flush=True)
    time.sleep(600)
"""


@posix_only
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("busy", ["sleep 600", "hold 600", "ok"])
def test_no_child_outlives_its_parent(fakes, repository, number, busy):
    videos = fakes(busy, busy)
    program = "import sys; sys.path[:0] = sys.argv.pop(1).split(':')\n" + textwrap.dedent(PARENT)
    site = str(videos[0].parent / "site")
    parent = subprocess.Popen(
        [sys.executable, "-c", program, f"{repository}:{site}", "1", *map(str, videos)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    logs = [path.parent / (path.name + ".log") for path in videos]
    assert wait_until(lambda: all(log.exists() and log.read_text() for log in logs))
    pids = {int(log.read_text().split()[0]) for log in logs}
    assert all(is_running(pid) for pid in pids) or busy == "ok"
    parent.send_signal(number)
    parent.wait(20)
    # A decoder that holds the interpreter's lock is ended by a timer: 1 s and 2 of grace.
    assert wait_until(lambda: not any(is_running(pid) for pid in pids), 12)
    parent.stdout.close()


def test_an_unknown_decoder_is_refused_before_any_child_starts():
    with pytest.raises(BackendError, match="unknown decoder 'opencv'; known: decord, pyav"):
        DecodeChildren(1, "opencv")
    with pytest.raises(ConfigError, match="unknown frame rule"):
        DecodeChildren(1, "pyav", "first")


def test_a_child_that_cannot_start_is_the_users_to_mend(monkeypatch, paths, capfd):
    monkeypatch.setattr("pipeline.decoding.process._PROGRAM", "raise SystemExit(9)")
    with DecodeChildren(1) as children, pytest.raises(BackendError, match=r"\(status 9\)"):
        list(children.read_many(paths[:1]))


def test_reading_outside_the_context_is_a_bug_of_the_caller(paths):
    with pytest.raises(ValueError, match="call it inside `with`"):
        DecodeChildren(1).read_many(paths)


def make_clip():
    frames = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    return DecodedClip(
        frames=frames[:, ::-1],
        frame_indices=np.array([4, 9], np.int32),
        num_frames_decoded=10,
        num_frames_expected=12,
        num_damaged_packets=2,
    )


def test_a_clip_round_trips_over_the_wire():
    pipe = BytesIO()
    send_result(pipe, make_clip())
    pipe.seek(0)
    result = receive_result(pipe, max_bytes=90)
    assert outcome(result) == outcome(make_clip())
    assert result.frames.flags.writeable


def test_an_answer_larger_than_an_honest_one_is_refused_before_memory_is_taken():
    pipe = BytesIO()
    send_result(pipe, make_clip())
    pipe.seek(0)
    with pytest.raises(ValueError, match="90 bytes .* max 89"):
        receive_result(pipe, max_bytes=89)


@pytest.mark.parametrize(
    "header", [b"[]", b"{}", b'{"shape": [1e400]}', b"[" * 9000, b"\xff", b"7"]
)
def test_a_broken_answer_is_refused(header):
    pipe = BytesIO(len(header).to_bytes(4, "little") + bytes(8) + header)
    with pytest.raises(ValueError):  # noqa: PT011  (json's and ours; what matters is the kind)
        receive_result(pipe, max_bytes=100)


def test_a_closed_pipe_is_the_end():
    with pytest.raises(EOFError):
        receive_result(BytesIO(b"\x01\x00"), max_bytes=100)


def test_mutated_videos_end_in_frames_or_a_reason(tmp_path):
    generator = np.random.default_rng(0)
    mutants = []
    for name in ("mpeg4_avi", "h264_mp4", "vp9_webm", "mpeg2_ps"):
        source = write_video(tmp_path / ("x" + form(name).suffix), scene(6, 48, 64), form(name))
        data = np.frombuffer(source.read_bytes(), np.uint8)
        for number in range(12):
            mutant = data.copy()
            places = generator.integers(0, len(data), 1 << generator.integers(0, 8))
            mutant[places] = generator.integers(0, 256, len(places))
            path = tmp_path / f"{name}{number}{source.suffix}"
            path.write_bytes(mutant[: generator.integers(len(data) // 2, len(data) + 1)].tobytes())
            mutants.append(path)
    with DecodeChildren(2, timeout_seconds=20) as children:
        results = list(children.read_many(mutants))
    reasons = {r.reason if isinstance(r, VideoError) else "ok" for r in results}
    assert len(results) == len(mutants)
    assert reasons <= {"ok", "undecodable", "short", "too_large"}
    assert {"ok", "undecodable"} <= reasons


@posix_only
@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc")
def test_answers_are_the_same_while_children_are_killed(paths):
    with DecodeChildren(0) as children:
        expected = [outcome(result) for result in children.read_many(paths)]
    with DecodeChildren(2) as children:
        seen = []
        for number, result in enumerate(children.read_many(paths)):
            seen.append(outcome(result))
            if number % 4 == 1:
                for pid in child_pids():
                    os.kill(pid, signal.SIGKILL)
                    break
    assert seen == expected


def child_pids():
    """Decoding processes of this process."""
    pids = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                is_decoder = b"pipeline.decoding.child" in file.read()
        except OSError:
            continue
        if parent == os.getpid() and is_decoder:
            pids.append(int(entry))
    return pids
