"""Text-guided segmenters: frames and prompts -> bit-packed masks of actor and objects."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.manifests import Video
from pipeline.prompts import PromptSet
from pipeline.registry import find_builder, known_names, require_known
from pipeline.segmenters.options import check_names, check_no_model, check_options_of

MASK_SIDE = 128
"""Masks cover the full frame with 128 x 128 cells."""
MASK_BYTES = MASK_SIDE * MASK_SIDE // 8
NUM_SLOTS = 4
"""Slot 0 is the actor, slots 1..3 are objects."""

ENTRY_POINT_GROUP = "i2st.segmenters"


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipToSegment:
    """One clip as a segmenter sees it."""

    video: Video
    frames: NDArray[np.uint8]
    """(F, H, W, 3) RGB, the whole frame at the video's own size."""
    frame_indices: NDArray[np.int32]
    """(F,) which decoded frames these are."""
    num_frames_decoded: int
    prompts: PromptSet


@dataclass(frozen=True, kw_only=True, slots=True)
class Masks:
    """Masks of one clip over the full frame, 128 x 128 cells, bit-packed in np.packbits order."""

    bits: NDArray[np.uint8]
    """(F, S, 2048)."""
    found: NDArray[np.bool_]
    """(F, S); False means "no supervision", never "empty mask"."""
    score: NDArray[np.float16]
    """(F, S) in [0, 1]; 1 for masks that were given."""


class Segmenter(Protocol):
    """Finds the instances that a prompt names."""

    name: str

    def fingerprint(self) -> dict[str, Any]:
        """JSON values that decide the masks: sha256 of weights, sizes, thresholds, templates."""
        ...

    def segment(self, clips: Sequence[ClipToSegment]) -> list[Masks]:
        """Masks of each clip, independent of the other clips in the call.

        Args:
            clips: any number of them, of any sizes.

        Returns:
            Masks in the order of the clips.

        Raises:
            VideoError: a clip's masks are unusable (reason ``masks``).
        """
        ...


def no_masks(num_frames: int) -> Masks:
    """Masks of a clip in which nothing was found."""
    return Masks(
        bits=np.zeros((num_frames, NUM_SLOTS, MASK_BYTES), np.uint8),
        found=np.zeros((num_frames, NUM_SLOTS), np.bool_),
        score=np.zeros((num_frames, NUM_SLOTS), np.float16),
    )


def _from(module: str) -> Callable[..., Segmenter]:
    def build(model: str, *, device: str, masks: Path | None, **options: Any) -> Segmenter:
        backend = import_module(f"pipeline.segmenters.{module}")
        check_options_of(backend.build, options, segmenter=module)
        segmenter: Segmenter = backend.build(model, device=device, masks=masks, **options)
        return segmenter

    return build


def _none(model: str, *, device: str, masks: Path | None, **options: Any) -> None:
    check_no_model(model, segmenter="none")
    check_names(options, (), segmenter="none")


SEGMENTERS: dict[str, Callable[..., Segmenter | None]] = {
    "sam_clip": _from("sam_clip"),
    "sam3": _from("open_vocabulary.sam3"),
    "grounding_dino_sam": _from("open_vocabulary.grounding_dino_sam"),
    "precomputed": _from("precomputed"),
    "center_prior": _from("center_prior"),
    "none": _none,
}
"""Name -> builder(model, *, device, masks, **options), which imports its backend when called."""


def segmenter_names() -> list[str]:
    """Names that get_segmenter takes."""
    return known_names(SEGMENTERS, ENTRY_POINT_GROUP)


def require_segmenter(spec: str) -> None:
    """Refuse a spec that names no segmenter.

    Args:
        spec: as for `get_segmenter`.

    Raises:
        BackendError: the name before the colon is unknown.
    """
    name = spec.partition(":")[0]
    require_known(name, builtin=SEGMENTERS, group=ENTRY_POINT_GROUP, kind="segmenter")


def get_segmenter(
    spec: str, *, device: str = "cpu", masks: Path | None = None, **options: Any
) -> Segmenter | None:
    """Build the segmenter that ``spec`` names.

    Args:
        spec: ``NAME`` or ``NAME:MODEL``: ``sam_clip:SAM_FILE`` or ``sam_clip:SAM_FILE,CLIP``
            (pipeline.segmenters.sam_clip says which files), ``sam3:FOLDER``,
            ``grounding_dino_sam:DINO,SAM``, ``precomputed``, ``center_prior``, ``none``.
        device: torch device of the models.
        masks: folder of mask files, for ``precomputed``.
        **options: settings of one backend, by its own names; numbers may be text.

    Returns:
        The segmenter; None for ``none``: shards without masks.

    Raises:
        BackendError: the name is unknown, or its weights or mask files are absent.
        ConfigError: ``masks`` is given to a built-in segmenter that reads none, or an option to
            one that does not have it.
    """
    name, _, model = spec.partition(":")
    if masks is not None and name in SEGMENTERS and name != "precomputed":
        raise ConfigError(
            f"--mask-files {masks} beside --segmenter {name}, which reads no files; needed: one of "
            "the two; pass `--segmenter precomputed`, or drop --mask-files"
        )
    builder = find_builder(name, builtin=SEGMENTERS, group=ENTRY_POINT_GROUP, kind="segmenter")
    segmenter: Segmenter | None = builder(model, device=device, masks=masks, **options)
    return segmenter
