"""Tables and text that fit a terminal: what does not fit goes on below, and no word is broken."""

import textwrap
from collections.abc import Sequence

GAP = "  "
LEAST_WRAPPED = 20
"""Columns of words give way down to this, and never break a word; what is shorter stays whole."""


def aligned(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int | None,
    *,
    right: Sequence[int] = (),
) -> str:
    """Write rows out in columns below their titles.

    Args:
        titles: one per column; the first column names the rows.
        rows: words of each cell.
        width: columns of the terminal; None keeps every row on one line.
        right: columns that end in one line, as numbers do.

    Returns:
        One block, or several below each other that each begin with the first column.
    """
    columns = [list(column) for column in zip(titles, *rows, strict=True)]
    blocks = side_by_side([_least(column) for column in columns], width)
    return "\n\n".join(_block(columns, block, width, right) for block in blocks)


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """Break text into lines at its spaces alone.

    Args:
        text: one paragraph.
        width: most letters in a line that holds more than one word.
        indent: what the lines after the first begin with.

    Returns:
        The lines.
    """
    return textwrap.wrap(
        text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def side_by_side(widths: Sequence[int], width: int | None) -> list[list[int]]:
    """Group columns into blocks that fit the terminal.

    Args:
        widths: of the columns.
        width: columns of the terminal; None puts all side by side.

    Returns:
        Numbers of the columns of each block; the first column stands in all of them.
    """
    if width is None or len(widths) < 2:
        return [list(range(len(widths)))]
    blocks: list[list[int]] = []
    used = 0
    for number in range(1, len(widths)):
        needed = len(GAP) + widths[number]
        if not blocks or used + needed > width:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(number)
        used += needed
    return blocks


def _least(column: Sequence[str]) -> int:
    """Width below which a column would break a word."""
    words = [word for cell in column for word in cell.split()]
    return min(_natural(column), max(LEAST_WRAPPED, *map(len, words)))


def _natural(column: Sequence[str]) -> int:
    return max(map(len, column))


def _block(
    columns: Sequence[Sequence[str]], block: Sequence[int], width: int | None, right: Sequence[int]
) -> str:
    widths = {number: _natural(columns[number]) for number in block}
    if width is not None:
        _shrink(widths, {number: _least(columns[number]) for number in block}, width)
    lines = []
    for row in range(len(columns[0])):
        cells = [wrapped(columns[n][row], widths[n]) or [""] for n in block]
        for line in range(max(map(len, cells))):
            parts = [own[line] if line < len(own) else "" for own in cells]
            lines.append(_line(parts, block, widths, right))
        if row == 0:
            lines.append(_line(["-" * widths[n] for n in block], block, widths, right))
    return "\n".join(lines)


def _shrink(widths: dict[int, int], least: dict[int, int], width: int) -> None:
    """Narrow the widest columns that can give way, until all fit."""
    over = sum(widths.values()) + len(GAP) * (len(widths) - 1) - width
    while over > 0 and (soft := [n for n in widths if widths[n] > least[n]]):
        widths[max(soft, key=lambda n: widths[n])] -= 1
        over -= 1


def _line(
    parts: Sequence[str], block: Sequence[int], widths: dict[int, int], right: Sequence[int]
) -> str:
    return GAP.join(
        part.rjust(widths[number]) if number in right else part.ljust(widths[number])
        for number, part in zip(block, parts, strict=True)
    ).rstrip()
