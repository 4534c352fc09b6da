"""Lines about progress where stderr is no terminal."""

import io
import re
import sys
import threading

import pytest

from pipeline.commands import progress as module
from pipeline.commands.console import note
from pipeline.commands.progress import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands until it is set."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_steps_are_lines_ten_seconds_apart_and_the_last_is_said(clock, capsys):
    with progress("videos") as show:
        for second in range(0, 36, 5):
            clock[0] = second
            show(second, 36, "fast")
        show(36, 36, "")
    said = ["videos 10/36: fast", "videos 20/36: fast", "videos 30/36: fast", "videos 36/36"]
    assert capsys.readouterr().err.splitlines() == said


def test_a_step_that_takes_minutes_is_said_to_go_on_once_a_minute(clock, capsys):
    lines = module._Lines("videos")
    for second in (30, 59, 60, 90, 119, 120):
        clock[0] = second
        lines.break_silence()
    assert capsys.readouterr().err.splitlines() == [
        "videos: at work for 60 s",
        "videos: at work for 120 s",
    ]
    clock[0] = 130
    lines.show(8, 360, "")
    for second in (180, 190):
        clock[0] = second
        lines.break_silence()
    assert capsys.readouterr().err.splitlines() == [
        "videos 8/360",
        "videos 8/360: at work for 60 s",
    ]


def test_what_is_under_way_is_said_in_place_of_the_words_and_while_it_lasts(clock, capsys):
    lines = module._Lines("steps")
    clock[0] = 10
    lines.show(0, 6, "0 episodes", under_way="looking at 1,000 val videos")
    clock[0] = 70
    lines.break_silence()
    clock[0] = 80
    lines.show(1, 6, "64 episodes")
    clock[0] = 140
    lines.break_silence()
    lines.show(6, 6, "384 episodes", under_way="looking at 1,000 val videos")
    lines.show(6, 6, "384 episodes, val 50.0")
    assert capsys.readouterr().err.splitlines() == [
        "steps 0/6: looking at 1,000 val videos",
        "steps 0/6: looking at 1,000 val videos for 60 s",
        "steps 1/6: 64 episodes",
        "steps 1/6: at work for 60 s",
        "steps 6/6: 384 episodes, val 50.0",
    ]


def test_the_watch_runs_beside_the_work_and_ends_with_it(monkeypatch):
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.01)
    heard = threading.Event()
    monkeypatch.setattr(module, "note", lambda sentence: heard.set())
    with progress("videos"):
        assert heard.wait(60)
    assert "progress" not in [thread.name for thread in threading.enumerate()]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_bar_on_a_terminal_shows_the_time_that_passes(monkeypatch):
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress("videos") as show:
        show(3, 7, "2/s")
    assert re.search(r"videos.*3/7.*0:00:0\d.*\n.*2/s", stderr.getvalue())


def test_a_note_is_printed_above_the_bar_and_not_into_it(monkeypatch):
    class Terminal(io.TextIOWrapper):
        def isatty(self):
            return True

    written = io.BytesIO()
    screen = Terminal(written, encoding="utf-8")
    monkeypatch.setattr(sys, "stderr", screen)
    for name, value in {"COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    with progress("steps") as show:
        show(0, 7, "")
        note("run: runs/a")
    screen.flush()
    # Back to the first column, the bar's line erased, the note on a line of its own.
    assert re.search(rb"\r\x1b\[2K(\x1b\[0m)?run: runs/a\s*\n", written.getvalue())


STAGES = "0.41 videos/s, 12 failed; each stage alone: decode 3.1/s, encode 0.49/s (busiest)"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_of_any_width_all_is_seen_and_no_line_is_too_long(width, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    for name, value in {"COLUMNS": str(width), "TERM": "xterm", "NO_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    with progress("videos") as show:
        show(10_029, 67_013, STAGES, seconds_left=5400)
    plain = re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", screen.getvalue())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", plain)]
    last = len(lines) - 1 - next(i for i, one in enumerate(lines[::-1]) if "10029/67013" in one)
    assert re.search(r"videos .*10029/67013 0:00:0\d 1\.5 h left$", lines[last])
    assert " ".join(line.strip() for line in lines[last + 1 :]).strip() == STAGES
    assert max(map(len, lines)) <= width


def test_the_time_left_is_said_once_where_the_work_knows_it(clock, capsys):
    with progress("videos") as show:
        clock[0] = 10
        show(3, 9, "2 videos/s", seconds_left=90)
        clock[0] = 20
        show(4, 9, "2 videos/s", under_way="closing a shard", seconds_left=80)
    assert capsys.readouterr().err.splitlines() == [
        "videos 3/9: 1.5 min left, 2 videos/s",
        "videos 4/9: closing a shard",
    ]
