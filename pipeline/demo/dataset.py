"""Writes the demo dataset: encoded videos, exact masks, the table of videos and a README."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.demo.actions import ACTIONS, Action
from pipeline.demo.scenes import HEIGHT, WIDTH, Footage, film, make_look, make_scene
from pipeline.errors import ConfigError
from pipeline.shards.files import explain_os_error

NUM_FRAMES = 24
FRAMES_PER_SECOND = 12
VIDEOS_PER_CLASS = 12
CLIPS_PER_SCENE = 2
"""Clips of a class that share a background: a table's group."""
_HEADER = ("path", "class", "split", "group", "id")

_README = """Synthetic videos of i2st's demo. They show no real action.

Made by `i2st demo` from seed {seed}: {classes} classes of {videos} videos, {frames} frames of
{width} x {height} pixels each, painted in numpy and encoded as MPEG-4. Objects, colours, places,
backgrounds, distractors and timing are drawn at random. Every class has a twin that shows the same
process backwards, so the frames of a video tell what happens and their order tells which of two.
An accuracy on these videos says that the program works; it says nothing about real videos.

videos/<class>/<clip>.mp4   the videos
videos.csv                  path, class, split, group (one background, shared by classes), id
masks/<class>/<clip>.npz    exact masks of what acts: bits (frames, height * width / 8) uint8 in
                            np.packbits order, height, width
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoPaths:
    """Where a demo dataset lies."""

    table: Path
    """CSV of path (below the table's folder), class, split, group, id (names the masks)."""
    videos: Path
    masks: Path


def make_demo(
    root: Path,
    *,
    seed: int = 0,
    videos_per_class: int = VIDEOS_PER_CLASS,
    on_progress: Callable[[int, int], None] | None = None,
) -> DemoPaths:
    """Write the demo dataset; the same seed writes the same bytes.

    Args:
        root: folder for videos, masks, table and README; made where absent.
        seed: decides everything random.
        videos_per_class: of each of the classes in ``ACTIONS``.
        on_progress: told how many of how many videos are written, after each.

    Returns:
        The parts of the dataset.

    Raises:
        ConfigError: the folder holds videos that these settings did not make, or cannot be
            written.
        ResourceError: the disk is full or fails.
    """
    paths = DemoPaths(table=root / "videos.csv", videos=root / "videos", masks=root / "masks")
    _claim(root, _readme(seed, videos_per_class))
    rows = []
    for number, action in enumerate(ACTIONS):
        for folder in (paths.videos, paths.masks):
            (folder / action.name).mkdir(parents=True, exist_ok=True)
        for clip, footage in enumerate(_footage(number, action, seed, videos_per_class)):
            group = f"scene{clip // CLIPS_PER_SCENE:02d}"
            name = f"{action.name}/{group}_take{clip % CLIPS_PER_SCENE}"
            write_video(paths.videos / f"{name}.mp4", footage.frames)
            write_masks(paths.masks / f"{name}.npz", footage.masks)
            rows.append((f"videos/{name}.mp4", action.name, action.split, group, name))
            if on_progress is not None:
                on_progress(len(rows), len(ACTIONS) * videos_per_class)
    with paths.table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([_HEADER, *rows])
    return paths


def write_video(path: Path, frames: NDArray[np.uint8]) -> None:
    """Encode frames as MPEG-4, which every build of FFmpeg can, without B-frames.

    Args:
        path: file to write; its suffix decides the container.
        frames: (F, H, W, 3) uint8. RGB.
    """
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("mpeg4", rate=FRAMES_PER_SECOND)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = 800_000
        stream.gop_size = 12
        stream.codec_context.time_base = Fraction(1, FRAMES_PER_SECOND)
        stream.codec_context.thread_count = 1  # slices, and so bytes, depend on it
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_masks(path: Path, masks: NDArray[np.bool_]) -> None:
    """Write masks as the ``precomputed`` segmenter reads them.

    Args:
        path: ``.npz`` file to write.
        masks: (F, H, W) bool.
    """
    num_frames, height, width = masks.shape
    bits = np.packbits(masks.reshape(num_frames, -1), axis=1)
    np.savez_compressed(path, bits=bits, height=np.int64(height), width=np.int64(width))


def _claim(root: Path, readme: str) -> None:
    """Write the README first: it says whose videos these are, also after an interruption."""
    path = root / "README.txt"
    found = path.read_text(encoding="utf-8") if path.is_file() else ""
    if found != readme and (found or (root / "videos").exists()):
        raise ConfigError(
            f"{root} holds other videos than this demo's; needed: a new folder, or one that the "
            "same seed and number of videos made; give another folder or delete this one"
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        path.write_text(readme, encoding="utf-8")
    except OSError as error:
        raise explain_os_error(error, root, len(readme)) from error


def _footage(number: int, action: Action, seed: int, count: int) -> Iterator[Footage]:
    for clip in range(count):
        # The scene's draw leaves the class out: a background says nothing about the action.
        scene = make_scene(np.random.default_rng((seed, 1, clip // CLIPS_PER_SCENE)))
        random = np.random.default_rng((seed, 2, number, clip))
        look = make_look(random)
        yield film(action, look, scene, num_frames=NUM_FRAMES, random=random)


def _readme(seed: int, videos_per_class: int) -> str:
    return _README.format(
        seed=seed,
        classes=len(ACTIONS),
        videos=videos_per_class,
        frames=NUM_FRAMES,
        width=WIDTH,
        height=HEIGHT,
    )
