"""What commands print: settings, sizes and times, as a reader sees them."""

import io
import sys

import pytest

import cli
from pipeline.commands.console import (
    byte_words,
    duration_words,
    note,
    say,
    show_result,
    show_settings,
)
from pipeline.commands.manifests import manifest_show

SETTINGS = {
    "method": "hyrsm",
    "options": {"heads": 4},
    "network": {},
    "classes": ("front shoot", "run"),
    "frames": None,
    "views": (),
    "masks": "true",
    "encoder": "open_clip:ViT-B-16-quickgelu/openai",
}


@pytest.mark.parametrize("width", [24, 60, 80, 200])
def test_settings_fit_the_terminal_and_no_word_is_broken(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    show_settings(SETTINGS)
    lines = capsys.readouterr().err.splitlines()
    words = [
        "settings: method=hyrsm",
        "options.heads=4",
        "classes=front shoot,run",
        "masks=true",
        "encoder=open_clip:ViT-B-16-quickgelu/openai",
    ]
    assert " ".join(line.strip() for line in lines) == " ".join(words)
    for line in lines:
        assert len(line) <= min(width, 100) or line.strip() in words
        assert line.count("front") == line.count("shoot,run")
    assert (len(lines) == 1) == (len(" ".join(words)) <= min(width, 100))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 KiB"),
        (640_966_656, "611.3 MiB"),
        (3 << 29, "1.5 GiB"),
    ],
)
def test_sizes_have_a_unit(size, words):
    assert byte_words(size) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (90, "1.5 min"), (5400, "1.5 h")]
)
def test_times_have_a_unit(seconds, words):
    assert duration_words(seconds) == words


def test_results_are_lines_with_sizes_and_times_in_words(capsys):
    values = {"hours": 0.05, "size_bytes": 2048, "seconds": 90.5, "masks": True, "views": None}
    show_result(values, as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "hours       0.05 (3.0 min)",
        "size_bytes  2048 (2.0 KiB)",
        "seconds     90.5 (1.5 min)",
        "masks       yes",
        "views       -",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


LONG = (
    "13 of 18 train videos have no mask; check the mask files with "
    "`i2st show shards/hmdb51 --limit 18` before training\nthen train"
)


def test_a_note_wraps_at_words_on_a_terminal_and_code_stays_whole(monkeypatch):
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("COLUMNS", "50")
    note(LONG)
    assert screen.getvalue().splitlines() == [
        "13 of 18 train videos have no mask; check the mask",
        "  files with `i2st show shards/hmdb51 --limit 18`",
        "  before training",
        "then train",
    ]


def test_a_note_into_a_pipe_is_left_as_it_is(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "50")
    note(LONG)
    say(LONG)
    written = capsys.readouterr()
    assert written.err == written.out == LONG + "\n"


def test_a_sentence_of_a_result_wraps_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    monkeypatch.setenv("COLUMNS", "24")
    say("means over frames with a true mask: 52.30 +/- 2.99 %")
    lines = ["means over frames with a", "  true mask:", "  52.30 +/- 2.99 %"]
    assert screen.getvalue().splitlines() == lines


def test_lists_of_classes_wrap_on_a_terminal_and_stay_one_line_in_a_pipe(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    manifest_show("hmdb51")
    piped = capsys.readouterr().out
    monkeypatch.setattr(sys, "stdout", screen := Terminal())
    manifest_show("hmdb51")
    (line,) = [line for line in piped.splitlines() if line.startswith("train (31): ")]
    assert line.count(", ") == 30
    lines = screen.getvalue().splitlines()
    first = next(place for place, one in enumerate(lines) if one.startswith("train (31): "))
    end = lines.index("", first)
    assert end - first > 5
    assert " ".join(one.strip() for one in lines[first:end]) == line
    assert max(map(len, lines[first:end])) <= 60


def test_what_is_meant_for_a_closed_stderr_is_no_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)  # as Python leaves it after `2>&-`
    monkeypatch.setattr(sys, "argv", ["i2st", "info", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""
