"""Masks from files: exact ones, or those of SEEM and others that live in their own environment.

Run the other model where it runs, over every frame that decodes, and write per video one of

    <masks>/<video_id>.npz           arrays bits, height, width; see npz_masks.read_npz
    <masks>/<video_id>.json          COCO run lengths; see json_masks.read_json
    <masks>/<video_id>/00012.png     one picture per frame; see png_masks.read_png_folder

where ``video_id`` is ``<class folder>/<clip>``; the first that exists counts. In every form the
slots are the actor and up to three objects, frames are those that decode, in presentation order
from 0, and masks may have any size: they cover the whole frame. Write an npz in Python as

    bits = np.packbits(masks.reshape(num_frames, -1), axis=1)   # masks: (num_frames, H, W) bool
    np.savez_compressed("masks/brush_hair/clip_1.npz", bits=bits, height=H, width=W)

A mask that is empty counts as not found: a segmenter that saw nothing is no evidence that nothing
is there. A video without a file has no masks, and that is not an error.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.errors import BackendError, VideoError
from pipeline.manifests import Video
from pipeline.masks import pack_masks, pool_masks
from pipeline.noted_files import files_below
from pipeline.segmenters import MASK_SIDE, ClipToSegment, Masks, no_masks
from pipeline.segmenters.mask_files.given import GivenMasks
from pipeline.segmenters.mask_files.json import read_json
from pipeline.segmenters.mask_files.npz import read_npz
from pipeline.segmenters.mask_files.png import read_png_folder
from pipeline.segmenters.options import check_no_model

Reader = Callable[[Path, Sequence[int], int], GivenMasks]
SUFFIXES = (".npz", ".json", ".png")


class Precomputed:
    """Segmenter that looks masks up in a folder.

    Args:
        folder: holds the mask files of the dataset's videos.

    Raises:
        BackendError: the folder is absent, or holds no file of a known form.
    """

    name = "precomputed"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sha256: str | None = None
        if not folder.is_dir():
            raise BackendError(
                f"masks folder {folder} is absent; segmenter 'precomputed' needs one; "
                "give `--mask-files DIR`, or `--segmenter none`"
            )
        if next(_mask_files(folder), None) is None:
            raise BackendError(
                f"masks folder {folder} holds no {', '.join(SUFFIXES)}; segmenter 'precomputed' "
                "needs <video_id>.npz, <video_id>.json or <video_id>/<frame>.png; "
                "give `--mask-files DIR`, or `--segmenter none`"
            )

    def fingerprint(self) -> dict[str, Any]:
        """Return the name and the sha256 over name and content of every mask file, read once."""
        if self._sha256 is None:
            self._sha256 = _folder_sha256(self.folder)
        return {"name": self.name, "masks_sha256": self._sha256}

    def segment(self, clips: Sequence[ClipToSegment]) -> list[Masks]:
        """Look up the masks of each clip's frames and reduce them to 128 x 128 cells.

        Args:
            clips: any number of them.

        Returns:
            Masks in the order of the clips.

        Raises:
            VideoError: a file cannot be read, or is of another number of frames than decode.
        """
        return [self._segment(clip) for clip in clips]

    def _segment(self, clip: ClipToSegment) -> Masks:
        located = self.locate(clip.video)
        if located is None:
            return no_masks(len(clip.frame_indices))
        path, read = located
        try:
            frames = [int(index) for index in clip.frame_indices]
            return reduce_masks(read(path, frames, clip.num_frames_decoded))
        except (ValueError, OSError) as error:
            raise VideoError(
                "masks", f"masks of {clip.video.video_id} in {path}: {error}; make them again"
            ) from error

    def locate(self, video: Video) -> tuple[Path, Reader] | None:
        """Return a video's mask file, or folder of pictures, and its reader; None where absent.

        Args:
            video: of the dataset that the folder is for.

        Returns:
            Path and reader of the first form that exists.

        Raises:
            VideoError: the video's id would lead out of the folder.
        """
        relative = PurePosixPath(video.video_id)
        if relative.is_absolute() or ".." in relative.parts:
            raise VideoError(
                "masks", f"video id {video.video_id!r} leaves {self.folder}; needed a path below it"
            )
        base = self.folder / relative
        for suffix, read in ((".npz", read_npz), (".json", read_json)):
            path = base.with_name(base.name + suffix)
            if path.is_file():
                return path, read
        return (base, read_png_folder) if base.is_dir() else None


def reduce_masks(given: GivenMasks) -> Masks:
    """Pool given masks to 128 x 128 cells; what is empty then is not found."""
    cells = np.zeros((*given.found.shape, MASK_SIDE, MASK_SIDE), np.bool_)
    cells[given.found] = pool_masks(given.pixels[given.found])
    found = np.asarray(cells.any(axis=(-2, -1)))
    score = np.where(found, given.score, 0).astype(np.float16)
    return Masks(bits=pack_masks(cells), found=found, score=score)


def build(model: str, *, device: str, masks: Path | None) -> Precomputed:
    """Registry entry.

    Args:
        model: must be empty; there is none.
        device: not used.
        masks: the folder.

    Returns:
        The segmenter.

    Raises:
        ConfigError: a model is named.
        BackendError: no folder is given, or Precomputed refuses it.
    """
    check_no_model(model, segmenter=Precomputed.name)
    if masks is None:
        raise BackendError(
            "segmenter 'precomputed' got no folder; needed mask files per video; "
            "give `--mask-files DIR`, or `--segmenter none`"
        )
    return Precomputed(masks)


def _mask_files(folder: Path) -> Iterator[Path]:
    return (path for path in files_below(folder) if path.suffix in SUFFIXES and path.is_file())


def _folder_sha256(folder: Path) -> str:
    total = sha256()
    for path in sorted(_mask_files(folder), key=lambda path: path.relative_to(folder).as_posix()):
        content = sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                content.update(block)
        total.update(f"{path.relative_to(folder).as_posix()}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()
