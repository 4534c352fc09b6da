"""Shards whose classes differ in motion alone: the same states, visited in another order.

Shape letters: F frames, g side of the grid, C channels.

Eight states lie on a ring. A class starts at one of them and goes round in steps of 1, 3, 5 or 7
(its speed; 7 is 1 backwards, 5 is 3), so that in eight frames each class visits every state once:
the frames of two classes, as a set, and their mean are the same. A state is a direction in feature
space, shown in a box that wanders over the grid and that masks mark. Cells outside the box show a
background that is drawn per video and stands still. Every frame may show the state before or after
its own instead (jitter), with the same chance in all classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.manifests import Video
from pipeline.segmenters import MASK_SIDE, Masks
from pipeline.shards.committed import finish
from pipeline.shards.rows import VideoFeatures
from pipeline.shards.writer import ShardWriter

NUM_STATES = FRAMES = 8
GRID, CHANNELS, BOX = 4, 64, 2
FINGERPRINT = {
    "decoder": {"name": "none", "version": "1"},
    "encoder": {"name": "synthetic-motion", "sha256": "0"},
    "frames": {"count": FRAMES, "rule": "segment_centres"},
    "view": {"geometry": "full_frame"},
}
PAIRS_OF_SPLITS = {"train": 8, "val": 3, "test": 5}


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """How hard the data set is; noise has variance 1."""

    videos: int = 40
    """Per class."""
    signal: float = 10.0
    """Length of a state's direction in each cell of the box."""
    background: float = 0.4
    """Standard deviation of each channel of a video's background."""
    jitter: float = 0.2
    """Chance that a frame shows a neighbour of its state in time."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A class: where it starts, and how far it goes per frame."""

    start: int
    speed: int

    @property
    def states(self) -> list[int]:
        """The state of each frame."""
        return [(self.start + self.speed * frame) % NUM_STATES for frame in range(FRAMES)]

    @property
    def name(self) -> str:
        """Of the class."""
        return f"from {self.start} by {self.speed}"

    def backwards(self) -> "Motion":
        """The same states from the last to the first."""
        return Motion(start=self.states[-1], speed=-self.speed % NUM_STATES)


def motions(seed: int) -> dict[str, list[Motion]]:
    """Classes of each split; a motion and the same backwards are always in one split."""
    forwards = [Motion(start=s, speed=v) for v in (1, 3) for s in range(NUM_STATES)]
    drawn = iter(np.random.default_rng(seed).permutation(len(forwards)))
    return {
        split: [
            one
            for _ in range(number)
            for forward in [forwards[next(drawn)]]
            for one in (forward, forward.backwards())
        ]
        for split, number in PAIRS_OF_SPLITS.items()
    }


def make_motion_shards(folder: Path, config: MotionConfig) -> None:
    """Write the data set; masks exist for the train split alone."""
    rng = np.random.default_rng([config.seed, 1])
    directions = np.linalg.qr(rng.normal(size=(CHANNELS, NUM_STATES)))[0].T * config.signal
    classes = motions(config.seed)
    names = {split: [motion.name for motion in some] for split, some in classes.items()}
    writer = ShardWriter(
        folder, FINGERPRINT, class_names=[n for some in names.values() for n in some]
    )
    # What an interrupted call left is written anew: the index comes last.
    folder.mkdir(parents=True, exist_ok=True)
    for shard, (split, motion) in enumerate((s, m) for s, some in classes.items() for m in some):
        rows = list(_videos(rng, config, split, motion, directions))
        writer.write(shard, rows, [])
    finish(folder, {"name": "motion", "classes": names}, FINGERPRINT)


def _videos(
    rng: np.random.Generator,
    config: MotionConfig,
    split: str,
    motion: Motion,
    directions: NDArray[np.float64],
) -> Iterator[VideoFeatures]:
    for number in range(config.videos):
        video_id = f"{motion.name}/{number:03d}"
        boxes = _boxes(rng)
        tokens = rng.normal(size=(FRAMES, GRID, GRID, CHANNELS))
        tokens += config.background * rng.normal(size=CHANNELS) * ~boxes[..., None]
        shown = directions[_jittered(rng, motion.states, config.jitter)]
        tokens += boxes[..., None] * shown[:, None, None]
        flat = tokens.reshape(FRAMES, GRID * GRID, CHANNELS)
        yield VideoFeatures(
            video=Video(
                video_id=video_id, path=video_id, class_name=motion.name, split=split, group=""
            ),
            tokens=flat.astype(np.float16),
            frame_embedding=flat.mean(axis=1).astype(np.float16),
            masks=_masks(boxes) if split == "train" else None,
            frame_indices=np.arange(FRAMES, dtype=np.int32),
            num_frames_decoded=FRAMES,
            num_frames_expected=FRAMES,
            num_damaged_packets=0,
        )


def _jittered(rng: np.random.Generator, states: list[int], jitter: float) -> list[int]:
    """States in which some frames show the one before or after theirs, round the ends too."""
    offsets = rng.choice([-1, 0, 1], size=FRAMES, p=[jitter / 2, 1 - jitter, jitter / 2])
    return [states[(frame + offset) % FRAMES] for frame, offset in enumerate(offsets)]


def _boxes(rng: np.random.Generator) -> NDArray[np.bool_]:
    """(F, g, g): a box that goes one cell or none along each axis from frame to frame."""
    places = rng.integers(0, GRID - BOX + 1, size=2) + np.cumsum(
        rng.integers(-1, 2, size=(FRAMES, 2)), axis=0
    )
    boxes = np.zeros((FRAMES, GRID, GRID), dtype=bool)
    for frame, (top, left) in enumerate(np.clip(places, 0, GRID - BOX)):
        boxes[frame, top : top + BOX, left : left + BOX] = True
    return boxes


def _masks(boxes: NDArray[np.bool_]) -> Masks:
    size = MASK_SIDE // GRID
    fine = boxes.repeat(size, axis=1).repeat(size, axis=2)
    return Masks(
        bits=np.packbits(fine.reshape(FRAMES, 1, -1), axis=-1),
        found=np.ones((FRAMES, 1), dtype=bool),
        score=np.ones((FRAMES, 1), dtype=np.float16),
    )
