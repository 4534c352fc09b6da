"""The square view of a frame that an encoder sees, and where that view lies in the frame's masks.

Every video has its base view. Train videos may have others beside it, because features that are
stored cannot be augmented like pixels: mirrored, at shifted times, at two more scales.

Shape letters: F frames, H and W the video's height and width, S side of the view, all in pixels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.clips import BASE_PHASE
from pipeline.errors import ConfigError
from pipeline.masks import pack_masks, unpack_masks
from pipeline.segmenters import MASK_SIDE, Masks

GEOMETRIES = ("center_crop", "full_frame")
DEFAULT_GEOMETRY = "center_crop"
Window = tuple[int, int]
"""First cell and the one behind the last, of the 128 along either axis; centred."""
_BASE_WINDOWS: dict[str, Window] = {"center_crop": (8, 120), "full_frame": (0, MASK_SIDE)}
"""224 of 256 pixels, centred: 16/256 of the frame is cut from each side, 8 of 128 cells."""


@dataclass(frozen=True, slots=True)
class View:
    """One way to look at a video."""

    name: str
    mirrored: bool = False
    """Left and right change places."""
    phase: float = BASE_PHASE
    """Shift of the frames in time, in shares of a segment; see pipeline.clips."""
    window: Window | None = None
    """Cells that are seen; None is the geometry's own window."""


BASE = View("base")

_FLIP = (View("flip", mirrored=True),)
_SHIFT = (View("early", phase=-0.25), View("late", phase=0.25))
_SCALE = {
    "center_crop": (View("wide", window=(0, MASK_SIDE)), View("near", window=(16, 112))),
    "full_frame": (View("crop", window=(8, 120)), View("near", window=(16, 112))),
}
VIEW_WORDS = ("flip", "shift", "scale")
"""What `stored_views` takes."""


def stored_views(words: Iterable[str], geometry: str = DEFAULT_GEOMETRY) -> tuple[View, ...]:
    """Views to store beside the base view of every train video.

    Args:
        words: of `VIEW_WORDS`: flip (mirrored), shift (a quarter of a segment earlier, and later),
            scale (one that shows more of the frame or less, and one nearer).
        geometry: one of ``GEOMETRIES``.

    Returns:
        The views, in an order that does not follow that of the words.

    Raises:
        ConfigError: a word is unknown.
    """
    asked = set(words)
    if unknown := sorted(asked - set(VIEW_WORDS)):
        raise ConfigError(
            f"unknown view {unknown[0]!r}; known: {', '.join(VIEW_WORDS)}; pass some of these"
        )
    views = {"flip": _FLIP, "shift": _SHIFT, "scale": _SCALE[_known(geometry)]}
    return tuple(view for word in VIEW_WORDS if word in asked for view in views[word])


def may_mirror(dataset: str) -> bool:
    """Whether the classes of a dataset stay what they are when left and right change places.

    Args:
        dataset: its name, as a manifest or a shard index gives it.

    Returns:
        False for Something-Something, some of whose classes are told apart by nothing else.
    """
    return not dataset.lower().startswith(("ssv2", "something"))


def views_named(names: Sequence[str], geometry: str = DEFAULT_GEOMETRY) -> tuple[View, ...]:
    """Views by name, as a fingerprint lists them.

    Args:
        names: of views that `stored_views` returns.
        geometry: the fingerprint's.

    Returns:
        The views in the order of the names.

    Raises:
        ConfigError: a view or the geometry is unknown.
    """
    if geometry not in GEOMETRIES:
        raise ConfigError(
            f"unknown geometry {geometry!r:.40} of stored frames; known: {', '.join(GEOMETRIES)}; "
            "use the i2st that wrote them, or extract again"
        )
    known = {view.name: view for view in stored_views(VIEW_WORDS, geometry)}
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"unknown stored view {unknown[0]!r} under {geometry}; known: {', '.join(known)}; "
            "use the i2st that wrote it, or extract again"
        )
    return tuple(known[name] for name in names)


def frame_phases(views: Iterable[View]) -> tuple[float, ...]:
    """Phases to decode for some views; the base view's comes first."""
    return tuple(dict.fromkeys([BASE_PHASE, *(view.phase for view in views)]))


def square_view(
    frames: NDArray[np.uint8],
    *,
    image_size: int,
    geometry: str = DEFAULT_GEOMETRY,
    view: View = BASE,
) -> NDArray[np.uint8]:
    """Turn frames of any size into the square views of an encoder.

    ``center_crop`` is the field's test view: resize to 256 x 256 without keeping the aspect, crop
    the central 224 x 224 (Paper: inferred from HyRSM and MoLo), here scaled to any ``image_size``.
    ``full_frame`` resizes the whole frame. Each frame is resized by itself with Pillow's
    antialiased bilinear filter in fixed point, so its bytes depend neither on its neighbours nor
    on threads.

    Args:
        frames: (F, H, W, 3) uint8. RGB, chosen in the view's phase.
        image_size: S, the side of the view in pixels.
        geometry: one of ``GEOMETRIES``.
        view: which view.

    Returns:
        (F, S, S, 3) uint8. RGB views in the order of the frames.

    Raises:
        ValueError: the frames are not (F, H, W, 3) uint8, or the geometry is unknown.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames are {frames.shape} {frames.dtype}; needed: (F, H, W, 3) uint8")
    first, end = _window(geometry, view)
    side = round(image_size * MASK_SIDE / (end - first))
    margin = (side - image_size) // 2
    crop = slice(margin, margin + image_size)
    views = np.empty((len(frames), image_size, image_size, 3), np.uint8)
    for one, frame in zip(views, frames, strict=True):
        resized = np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BILINEAR))
        seen = resized[crop, crop]
        one[:] = seen[:, ::-1] if view.mirrored else seen
    return views


def mask_window(geometry: str = DEFAULT_GEOMETRY, view: View = BASE) -> slice:
    """Cells of the 128 x 128 mask that the view covers, the same along both axes."""
    return slice(*_window(geometry, view))


def oriented_masks(masks: Masks, view: View) -> Masks:
    """Masks of a view's own frames as the view shows them: mirrored where it is."""
    if not view.mirrored:
        return masks
    mirrored = np.ascontiguousarray(unpack_masks(masks.bits)[..., ::-1])
    return Masks(bits=pack_masks(mirrored), found=masks.found, score=masks.score)


def _window(geometry: str, view: View) -> Window:
    return view.window or _BASE_WINDOWS[_known(geometry)]


def _known(geometry: str) -> str:
    if geometry not in GEOMETRIES:
        raise ValueError(f"unknown geometry {geometry!r}; known: {', '.join(GEOMETRIES)}")
    return geometry
