"""Tables that fit a terminal, drawn by hand here."""

import pytest

from pipeline.columns import aligned

TITLES = ("name", "videos", "title")
ROWS = [
    ("hmdb51", "4280/1194/1292", "HMDB51, few-shot split of ARN"),
    ("ssv2", "67013/1926/2857", "Something-Something V2 Full"),
]
ON_ONE_LINE = """\
name    videos           title
------  ---------------  -----------------------------
hmdb51  4280/1194/1292   HMDB51, few-shot split of ARN
ssv2    67013/1926/2857  Something-Something V2 Full"""
WORDS_GIVE_WAY = """\
name    videos           title
------  ---------------  -----------------------
hmdb51  4280/1194/1292   HMDB51, few-shot split
                         of ARN
ssv2    67013/1926/2857  Something-Something V2
                         Full"""
STACKED = """\
name    videos
------  ---------------
hmdb51  4280/1194/1292
ssv2    67013/1926/2857

name    title
------  -----------------------------
hmdb51  HMDB51, few-shot split of ARN
ssv2    Something-Something V2 Full"""


@pytest.mark.parametrize(
    ("width", "drawn"),
    [(None, ON_ONE_LINE), (54, ON_ONE_LINE), (48, WORDS_GIVE_WAY), (44, STACKED)],
)
def test_words_give_way_first_and_then_columns_go_on_below(width, drawn):
    assert aligned(TITLES, ROWS, width) == drawn


@pytest.mark.parametrize("width", range(20, 70, 3))
def test_no_word_is_broken_at_any_width_and_lines_fit_where_their_words_do(width):
    drawn = aligned(TITLES, ROWS, width)
    for row in (TITLES, *ROWS):
        assert set(" ".join(row).split()) <= set(drawn.split())
    if width >= len("hmdb51") + 2 + len("Something-Something V2"):
        assert max(map(len, drawn.splitlines())) <= width


def test_numbers_end_in_one_line_in_every_block():
    rows = [("a", "7", "1"), ("b", "12345", "22")]
    drawn = aligned(("class", "frames", "videos"), rows, 15, right=(1, 2))
    assert drawn.splitlines() == [
        "class  frames",
        "-----  ------",
        "a           7",
        "b       12345",
        "",
        "class  videos",
        "-----  ------",
        "a           1",
        "b          22",
    ]


def test_a_table_without_rows_is_its_titles():
    assert aligned(("split", "class"), [], 80) == "split  class\n-----  -----"
