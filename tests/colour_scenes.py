"""Pictures of coloured discs on green, for segmenters whose models are fakes that see colour."""

import numpy as np

from pipeline.manifests import Video
from pipeline.masks import pool_masks
from pipeline.prompts import PromptSet
from pipeline.segmenters import ClipToSegment

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "yellow": (255, 255, 0)}
GREEN = (0, 255, 0)


def scene(*discs, height=120, width=160):
    """A frame with discs (colour, x, y, radius) on green, and the mask of each."""
    frame = np.empty((height, width, 3), np.uint8)
    frame[:] = GREEN
    y, x = np.mgrid[:height, :width] + 0.5
    masks = []
    for colour, centre_x, centre_y, radius in discs:
        mask = (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2
        frame[mask] = COLOURS[colour]
        masks.append(mask)
    return frame, masks


def scene_clip(frames, actor=("red",), objects=(), name="a"):
    return ClipToSegment(
        video=Video(video_id=name, path=name, class_name="c", split="train"),
        frames=np.stack(frames),
        frame_indices=np.arange(len(frames), dtype=np.int32),
        num_frames_decoded=len(frames),
        prompts=PromptSet(key="c", actor=actor, objects=objects, source="table"),
    )


def scene_clips():
    """Four clips of different sizes, each of three frames with a red and a blue disc."""
    rng = np.random.default_rng(0)
    return [
        scene_clip(
            [
                scene(
                    ("red", *rng.integers(30, 90, 2), 20),
                    ("blue", *rng.integers(30, 90, 2), 12),
                    height=120 + 8 * i,
                )[0]
                for _ in range(3)
            ],
            objects=("blue",),
            name=str(i),
        )
        for i in range(4)
    ]


def cell_iou(cells, mask):
    """Overlap of (128, 128) cells with a mask in pixels."""
    pooled = pool_masks(mask)
    return (cells & pooled).sum() / (cells | pooled).sum()


def assert_same_masks(first, second):
    for name in ("bits", "found", "score"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def assert_clips_stand_alone(segment):
    """What `segment` finds in a clip depends neither on the clips beside it nor on their order."""
    clips = scene_clips()
    together, backwards = segment(*clips), segment(*clips[::-1])[::-1]
    for clip, first, second in zip(clips, together, backwards, strict=True):
        assert first.found[:, :2].all()
        assert_same_masks(first, second)
        assert_same_masks(first, segment(clip)[0])
