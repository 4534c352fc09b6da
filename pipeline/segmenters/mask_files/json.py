"""Masks of one video from a JSON file of COCO run lengths."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.masks import decode_coco_rle
from pipeline.segmenters.mask_files.given import (
    MAX_FILE_BYTES,
    GivenMasks,
    MaskFileError,
    check_count,
    check_size,
    empty_masks,
)

_SLOTS = {"actor": 0, "object1": 1, "object2": 2, "object3": 3}


def read_json(path: Path, frame_indices: Sequence[int], num_frames: int) -> GivenMasks:
    """Read COCO run lengths.

    Either a list with one run-length mask, or null, per frame that decodes; or an object
    ``{"num_frames": n, "masks": [{"frame": i, "slot": "actor", "rle": {"size": [H, W], "counts":
    ...}, "score": 0.9}, ...]}`` where slot is actor (the default), object1, object2 or object3 and
    score is optional. Several masks of one frame and slot are united; the lowest score counts.

    Args:
        path: the file.
        frame_indices: (F,) frames asked for, by number among those that decode; may repeat.
        num_frames: frames that decode.

    Returns:
        Masks of the F frames.

    Raises:
        MaskFileError: the file does not fit that form or the video.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise MaskFileError(f"{path.stat().st_size} bytes; needed at most {MAX_FILE_BYTES}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries, claimed = _json_entries(content)
        check_count(claimed, num_frames)
        return _from_entries(entries, frame_indices, num_frames)
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise MaskFileError(f"unexpected JSON ({type(error).__name__}: {error})") from error


def _json_entries(content: Any) -> tuple[list[dict[str, Any]], int]:
    if isinstance(content, list):
        entries = [{"frame": i, "rle": rle} for i, rle in enumerate(content) if rle is not None]
        return entries, len(content)
    return list(content["masks"]), int(content["num_frames"])


def _from_entries(
    entries: list[dict[str, Any]], frame_indices: Sequence[int], num_frames: int
) -> GivenMasks:
    sizes = {tuple(int(side) for side in entry["rle"]["size"]) for entry in entries} or {(1, 1)}
    if len(sizes) > 1:
        raise MaskFileError(f"masks of sizes {sorted(sizes)}; needed one size")
    height, width = sizes.pop()
    check_size(height, width)
    given = empty_masks(len(frame_indices), height, width)
    wanted = np.asarray(frame_indices)
    for entry in entries:
        frame, slot, score = _frame_slot_score(entry, num_frames)
        rows = np.flatnonzero(wanted == frame)
        if not len(rows):
            continue
        given.pixels[rows, slot] |= decode_coco_rle(entry["rle"]["counts"], height, width)
        lowest = np.where(given.found[rows, slot], given.score[rows, slot], 1.0)
        given.score[rows, slot] = np.minimum(lowest, score)
        given.found[rows, slot] = True
    return given


def _frame_slot_score(entry: dict[str, Any], num_frames: int) -> tuple[int, int, float]:
    frame, slot = int(entry["frame"]), entry.get("slot", "actor")
    score = float(entry.get("score", 1.0))
    if not 0 <= frame < num_frames:
        raise MaskFileError(f"a mask of frame {frame}; needed 0 to {num_frames - 1}")
    if slot not in _SLOTS:
        raise MaskFileError(f"slot {slot!r}; needed one of {', '.join(_SLOTS)}")
    if not 0 <= score <= 1:
        raise MaskFileError(f"score {score}; needed 0 to 1")
    return frame, _SLOTS[slot], score
