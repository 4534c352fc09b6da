"""A picture of clips: every stored frame with its masks, what was looked for and what was found."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import ConfigError
from pipeline.masks import unpack_masks
from pipeline.showing.clips import ShownClip
from pipeline.showing.mask_overlay import SLOT_COLOURS, paint_masks

FRAMES_PER_ROW = 8
THUMBNAIL = 208
"""Longer side of a frame on the sheet, in pixels."""
_MARGIN, _GAP, _CAPTION, _HEAD, _TITLE = 28, 8, 24, 64, 84
_WIDTH = 2 * _MARGIN + FRAMES_PER_ROW * (THUMBNAIL + _GAP) - _GAP
_PAPER, _INK, _GREY, _RULE = (255, 255, 255), (24, 26, 30), (112, 118, 128), (222, 225, 230)


def contact_sheet(clips: Sequence[ShownClip], *, title: str, subtitle: str) -> Image.Image:
    """Draw clips below each other: head, then frames with masks, number and scores.

    Args:
        clips: at least one, each of its own size.
        title: headline of the sheet.
        subtitle: what the masks come from.

    Returns:
        RGB picture.
    """
    height = _TITLE + sum(_height(clip) for clip in clips) + _MARGIN
    sheet = Image.new("RGB", (_WIDTH, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    _text(pen, (_MARGIN, 22), title, 26, _INK)
    _text(pen, (_MARGIN, 56), subtitle, 15, _GREY)
    top = _TITLE
    for clip in clips:
        pen.line((_MARGIN, top, _WIDTH - _MARGIN, top), _RULE)
        _draw_head(pen, clip, top + 12)
        _draw_frames(sheet, pen, clip, top + _HEAD)
        top += _height(clip)
    return sheet


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a picture in the form that its suffix names.

    Args:
        sheet: the picture.
        path: where to; a file of that name is replaced.

    Raises:
        ConfigError: the suffix names no form of picture, or the file cannot be written.
    """
    try:
        sheet.save(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"cannot write the picture {str(path)!a:.200} ({why}); a name such as masks.png in a "
            "folder that can be written was needed; pass another --out"
        ) from error


def _thumbnail_size(clip: ShownClip) -> tuple[int, int]:
    height, width = clip.frames.shape[1:3]
    scale = THUMBNAIL / max(height, width)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _num_rows(clip: ShownClip) -> int:
    return -(-len(clip.frames) // FRAMES_PER_ROW)


def _height(clip: ShownClip) -> int:
    return _HEAD + _num_rows(clip) * (_thumbnail_size(clip)[1] + _CAPTION) + _GAP


def _draw_head(pen: ImageDraw.ImageDraw, clip: ShownClip, top: int) -> None:
    end = _text(pen, (_MARGIN, top), clip.class_name, 19, _INK)
    words = f"{clip.video_id} ({clip.split})" if clip.split else clip.video_id
    _text(pen, (end + 12, top + 4), words, 14, _GREY)
    left = _MARGIN
    for noun in clip.nouns if clip.masks is not None else ():
        found = clip.found_in(noun.slot)
        left = _swatch(pen, left, top + 30, noun.slot, bool(found)) + 6
        left = _text(pen, (left, top + 27), noun.text, 15, _INK if found else _GREY)
        left = _text(pen, (left + 7, top + 28), _verdict(clip, noun.slot), 14, _GREY) + 26
    words = f"prompts: {clip.prompt_source}" if clip.masks is not None else "no masks"
    if clip.masks is None and clip.of_other_split:
        words += ": only train videos have them"
    _text(pen, (left, top + 28), words, 14, _GREY)


def _verdict(clip: ShownClip, slot: int) -> str:
    score = clip.mean_score(slot)
    if score is None:
        return "not found"
    return f"found in {clip.found_in(slot)} of {len(clip.frames)}, score {score:.2f}"


def _draw_frames(sheet: Image.Image, pen: ImageDraw.ImageDraw, clip: ShownClip, top: int) -> None:
    width, height = _thumbnail_size(clip)
    for number, frame in enumerate(clip.frames):
        row, column = divmod(number, FRAMES_PER_ROW)
        left = _MARGIN + column * (THUMBNAIL + _GAP)
        upper = top + row * (height + _CAPTION)
        picture = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
        if clip.masks is not None:
            cells = unpack_masks(clip.masks.bits[number])
            picture = paint_masks(picture, cells, clip.masks.found[number])
        sheet.paste(picture, (left, upper))
        _draw_caption(pen, clip, number, left, upper + height + 4)


def _draw_caption(
    pen: ImageDraw.ImageDraw, clip: ShownClip, number: int, left: int, top: int
) -> None:
    # Four scores of 1.00 and a number of five digits just fit below a frame.
    left = _text(pen, (left, top), str(clip.frame_indices[number]), 12, _GREY) + 8
    for noun in clip.nouns if clip.masks is not None else ():
        assert clip.masks is not None
        found = bool(clip.masks.found[number, noun.slot])
        left = _swatch(pen, left, top + 2, noun.slot, found, size=10) + 3
        words = f"{clip.masks.score[number, noun.slot]:.2f}" if found else "-"
        left = _text(pen, (left, top), words, 12, _INK if found else _GREY) + 5


def _swatch(
    pen: ImageDraw.ImageDraw, left: int, top: int, slot: int, filled: bool, *, size: int = 12
) -> int:
    """Draw a slot's colour, hollow where nothing was found; return where it ends."""
    box = (left, top, left + size, top + size)
    colour = SLOT_COLOURS[slot]
    pen.rounded_rectangle(box, 3, fill=colour if filled else None, outline=colour, width=2)
    return left + size


def _text(
    pen: ImageDraw.ImageDraw, at: tuple[int, int], words: str, size: int, colour: tuple[int, ...]
) -> int:
    """Write words in one line that stays on the sheet, and return where they end."""
    font = _font(size)
    line = "".join(letter if letter.isprintable() else "?" for letter in words)
    room = _WIDTH - _MARGIN - at[0]
    if pen.textlength(line, font=font) > room:
        lengths = range(len(line))
        fitting = bisect_right(
            lengths, room, key=lambda n: math.ceil(pen.textlength(f"{line[:n]}...", font=font))
        )
        line = f"{line[: fitting - 1]}..." if fitting else ""
    pen.text(at, line, fill=colour, font=font)
    return at[0] + round(pen.textlength(line, font=font))


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
