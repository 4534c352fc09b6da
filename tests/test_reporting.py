"""Tables of results in every form, read back by parsers of those forms where there are any."""

import csv
import json
import re

import pytest

from i2st_model.reporting.tables import FORMS, ResultTable, Row, render
from i2st_model.statistics import Accuracy, Interval
from pipeline.errors import ConfigError

TABLE = ResultTable(
    columns=("5-way 1-shot", "5-way 5-shot", "A - B"),
    rows=(
        Row(name="bi_mhm", cells=(Accuracy(mean=60.123, half_width=0.4), None, None)),
        Row(
            name="otam:shots=a|b",
            cells=(
                Accuracy(mean=61.0, half_width=0.4),
                Accuracy(mean=70.0, half_width=0.3),
                Interval(mean=0.88, low=-0.1, high=1.86),
            ),
        ),
        Row(
            name="clip",
            uses_class_names=True,
            cells=(
                Accuracy(mean=61.001, half_width=0.4),  # as printed, no better than 61
                Accuracy(mean=71.0, half_width=0.3),
                Interval(mean=-0.88, low=-1.0, high=-0.76),
            ),
        ),
    ),
    notes=("toy test, 100 % & more.",),
)


def test_best_of_a_column_is_judged_by_what_is_printed():
    assert TABLE.best == ({1, 2}, {2}, set())
    assert ResultTable(columns=("a",), rows=TABLE.rows[:1]).best[0] == set()  # best of one is none


def test_text_is_aligned_with_the_best_in_bold():
    text = render(TABLE, "table")
    assert text.count("\x1b[1m") == 3
    assert "\x1b[1m71.00 +/- 0.30\x1b[0m" in text
    plain = re.sub(r"\x1b\[\dm", "", text).splitlines()
    assert plain == [
        "method          5-way 1-shot    5-way 5-shot    A - B",
        "--------------  --------------  --------------  --------------------",
        "bi_mhm          60.12 +/- 0.40  -               -",
        "otam:shots=a|b  61.00 +/- 0.40  70.00 +/- 0.30  +0.88 [-0.10, +1.86]",
        "clip*           61.00 +/- 0.40  71.00 +/- 0.30  -0.88 [-1.00, -0.76]",
        "toy test, 100 % & more.",
        "* knows the names of the classes it is tested on.",
    ]


@pytest.mark.parametrize(
    ("width", "titles"),
    [
        (68, [["5-way 1-shot", "5-way 5-shot", "A - B"]]),
        (67, [["5-way 1-shot", "5-way 5-shot"], ["A - B"]]),
        (45, [["5-way 1-shot"], ["5-way 5-shot"], ["A - B"]]),
        (10, [["5-way 1-shot"], ["5-way 5-shot"], ["A - B"]]),
    ],
)
def test_a_table_that_is_wider_than_the_terminal_goes_on_below(width, titles):
    whole = re.sub(r"\x1b\[\dm", "", render(TABLE, "table")).splitlines()
    shown = re.sub(r"\x1b\[\dm", "", render(TABLE, "table", width))
    *blocks, last = shown.split("\n\n")
    blocks.append("\n".join(last.splitlines()[:5]))
    notes = last.splitlines()[5:]
    assert " ".join(notes) == " ".join(whole[5:])
    cells = [[re.split(" {2,}", line) for line in block.splitlines()] for block in blocks]
    assert [block[0] for block in cells] == [["method", *own] for own in titles]
    for number in range(2, 5):
        words = [cells[0][number][0], *(w for block in cells for w in block[number][1:])]
        assert words == re.split(" {2,}", whole[number])
    assert all(len(line) <= max(width, 36) for line in shown.splitlines())


def test_a_note_breaks_at_spaces_alone():
    note = "leave them out with --drop-small-classes"
    shown = render(ResultTable(columns=("a",), rows=(), notes=(note,)), "table", 30)
    assert shown.splitlines()[2:] == ["leave them out with", "--drop-small-classes"]


def test_markdown_escapes_what_markdown_would_read():
    lines = render(TABLE, "markdown").splitlines()
    assert lines[1] == "| --- | --- | --- | --- |"
    assert lines[2] == r"| bi\_mhm | 60.12 +/- 0.40 | - | - |"
    assert lines[3].startswith(r"| otam:shots=a\|b | **61.00 +/- 0.40** | 70.00 +/- 0.30 |")
    assert lines[4].startswith(r"| clip\* | **61.00 +/- 0.40** | **71.00 +/- 0.30** |")
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 5 for line in lines[:5])


def test_csv_gives_one_number_per_field():
    rows = list(csv.DictReader(render(TABLE, "csv").splitlines()))
    assert [row["method"] for row in rows] == ["bi_mhm", "otam:shots=a|b", "clip"]
    assert [row["uses_class_names"] for row in rows] == ["false", "false", "true"]
    assert float(rows[0]["5-way 1-shot mean"]) == 60.123
    assert rows[0]["5-way 5-shot mean"] == rows[0]["A - B low"] == ""
    assert [float(rows[2][f"A - B {part}"]) for part in ("mean", "low", "high")] == [
        -0.88,
        -1,
        -0.76,
    ]


def test_latex_is_a_booktabs_tabular_with_everything_escaped():
    lines = render(TABLE, "latex").splitlines()
    assert lines[0] == r"\begin{tabular}{lccc}"
    assert lines[2] == r"method & 5-way 1-shot & 5-way 5-shot & A - B \\"
    assert lines[4] == r"bi\_mhm & 60.12 $\pm$ 0.40 & -- & -- \\"
    assert r"\textbf{71.00 $\pm$ 0.30} & $-0.88$ [$-1.00$, $-0.76$] \\" in lines[6]
    assert lines[-3] == r"\end{tabular}"
    assert lines[-2] == "% toy test, 100 % & more."
    assert lines[5].startswith(r"otam:shots=a\textbar{}b & ")
    odd = ResultTable(columns=("c",), rows=(Row(name=r"[a]_#$%&{}~^\<", cells=("x_y",)),))
    assert r"{[}a{]}\_\#\$\%\&\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in render(
        odd, "latex"
    )


def test_json_keeps_every_digit():
    read = json.loads(render(TABLE, "json"))
    assert read["rows"][2] == {
        "method": "clip",
        "uses_class_names": True,
        "cells": {
            "5-way 1-shot": {"mean": 61.001, "half_width": 0.4},
            "5-way 5-shot": {"mean": 71.0, "half_width": 0.3},
            "A - B": {"mean": -0.88, "low": -1.0, "high": -0.76},
        },
    }
    assert read["rows"][0]["cells"]["5-way 5-shot"] is None
    assert read["notes"] == list(TABLE.notes)


def test_unknown_form_is_refused_by_name():
    with pytest.raises(ConfigError, match="format='html' is unknown; known: table, markdown, csv"):
        render(TABLE, "html")
    assert list(FORMS) == ["table", "markdown", "csv", "latex", "json"]
