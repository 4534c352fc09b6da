"""Masks of one video from a folder of pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.segmenters import NUM_SLOTS
from pipeline.segmenters.mask_files.given import GivenMasks, MaskFileError, check_size, empty_masks


def read_png_folder(folder: Path, frame_indices: Sequence[int], num_frames: int) -> GivenMasks:
    """Read one single-channel PNG per frame, ``00012.png`` for frame 12.

    Pixels: 0 nothing, 1 or 255 actor, 2 to 4 objects 1 to 3 (palette indices count as they are).
    Frames without a picture have no masks.

    Args:
        folder: the pictures.
        frame_indices: (F,) frames asked for, by number among those that decode; may repeat.
        num_frames: frames that decode.

    Returns:
        Masks of the F frames.

    Raises:
        MaskFileError: a picture does not fit that form or the video.
    """
    paths = _numbered(folder)
    if max(paths) >= num_frames:
        raise MaskFileError(
            f"{paths[max(paths)].name} is frame {max(paths)} counted from 0; needed below "
            f"{num_frames}, the frames that decode"
        )
    labels = {index: _read_labels(paths[index]) for index in {*frame_indices} & paths.keys()}
    sizes = {picture.shape for picture in labels.values()} or {(1, 1)}
    if len(sizes) > 1:
        raise MaskFileError(f"pictures of sizes {sorted(sizes)}; needed one size")
    given = empty_masks(len(frame_indices), *sizes.pop())
    for row, index in enumerate(frame_indices):
        if index in labels:
            given.pixels[row] = labels[index] == np.arange(1, NUM_SLOTS + 1)[:, None, None]
            given.found[row] = True
    return given


def _numbered(folder: Path) -> dict[int, Path]:
    paths: dict[int, Path] = {}
    for path in sorted(folder.glob("*.png")):
        if not path.stem.isdecimal():
            raise MaskFileError(f"picture {path.name}; needed the frame's number as its name")
        paths[int(path.stem)] = path
    if not paths:
        raise MaskFileError("no PNG; needed one per frame, named by its number from 0")
    return paths


def _read_labels(path: Path) -> NDArray[np.uint8]:
    """Read slot + 1 per pixel, 0 for nothing."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            check_size(picture.height, picture.width)
            if picture.mode not in ("1", "L", "P"):
                raise MaskFileError(
                    f"{path.name} has mode {picture.mode}; needed one 8-bit channel"
                )
            labels = np.asarray(picture).astype(np.uint8)
    except (Image.DecompressionBombError, UnidentifiedImageError, OSError, SyntaxError) as error:
        raise MaskFileError(f"{path.name} does not decode ({error})") from error
    labels = np.where(labels == 255, 1, labels).astype(np.uint8)
    if labels.max() > NUM_SLOTS:
        raise MaskFileError(f"{path.name} has value {labels.max()}; needed 0 to {NUM_SLOTS} or 255")
    return labels
