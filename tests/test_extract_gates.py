"""What hands share: gates before the models, and batches that a GPU has no room for."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import extraction_fakes as fakes
import numpy as np
import pytest
import torch

from pipeline.decoding import DecodedClip
from pipeline.errors import ResourceError
from pipeline.extraction.gates import Gate, open_gates
from pipeline.extraction.segmenting import Segmenting
from pipeline.extraction.storing import FeatureRows
from pipeline.extraction.viewed_clips import ViewedClip
from pipeline.manifests import Manifest, Video
from pipeline.segmenters import no_masks
from pipeline.views import BASE


def most_at_once(gate, num_threads=6):
    """Threads that were inside a gate together."""
    inside, seen = [], []

    def enter(number):
        with gate.turn():
            inside.append(number)
            seen.append(len(inside))
            time.sleep(0.05)
            inside.pop()

    with ThreadPoolExecutor(num_threads) as threads:
        list(threads.map(enter, range(num_threads)))
    return max(seen)


@pytest.mark.parametrize(("device", "expected"), [("cpu", 3), ("cuda:1", 1)])
def test_gates_let_through_as_many_hands_as_the_device_serves(device, expected):
    for gate in open_gates(device, 3):
        assert most_at_once(gate) == expected


def test_gates_of_one_processor_are_one_gate_and_those_of_a_gpu_are_two():
    encoder, segmenter = open_gates("cpu", 2)
    assert encoder is segmenter
    encoder, segmenter = open_gates("cuda:0", 2)
    assert encoder is not segmenter


def test_gate_takes_a_thread_that_has_computed_on_several_torch_threads():
    seen = []

    def compute():
        torch.set_num_threads(2)
        with Gate(1).turn():
            seen.append(torch.get_num_threads())

    thread = threading.Thread(target=compute)
    before = torch.get_num_threads()
    try:
        thread.start()
        thread.join()
    finally:
        torch.set_num_threads(before)
    assert seen == [1]


def test_feature_rows_halve_once_for_hands_that_ran_out_of_memory_together():
    encoder = fakes.FakeEncoder("", device="cpu", grid=None, weights=None)
    rows = FeatureRows(encoder, Gate(1), 8)
    for _ in range(2):
        rows._halve(8, torch.cuda.OutOfMemoryError("fake"))
    rows._encode(np.zeros((8, fakes.SIDE, fakes.SIDE, 3), np.uint8))
    assert encoder.batches == [4, 4]


class SmallSegmenter:
    """Has room for so many clips at once; the actor's mask is made of the frame's index."""

    name = "small"

    def __init__(self, most):
        self.most = most
        self.calls = []

    def segment(self, clips):
        self.calls.append(len(clips))
        if len(clips) > self.most:
            raise torch.cuda.OutOfMemoryError("fake")
        return [self._one(clip) for clip in clips]

    def _one(self, clip):
        masks = no_masks(len(clip.frame_indices))
        masks.bits[:, 0] = clip.frame_indices[:, None]
        return masks


def viewed(number):
    clip = DecodedClip(
        frames=np.zeros((1, 4, 4, 3), np.uint8),
        frame_indices=np.array([number]),
        num_frames_decoded=9,
        num_frames_expected=9,
        num_damaged_packets=0,
    )
    video = Video(video_id=f"clap/{number}", path="", class_name="clap", split="train")
    return ViewedClip(video, (clip,), (BASE,), (0,), ())


def segmenting(segmenter):
    manifest = Manifest(name="fakes", title="", classes=fakes.CLASSES)
    return Segmenting(segmenter, Gate(1), manifest=manifest, prompts=None, prompt_mode="nouns")


def test_segmenting_halves_its_clips_when_gpu_memory_runs_out():
    segmenter = SmallSegmenter(2)
    found = segmenting(segmenter).masks([viewed(number) for number in range(5)])
    assert [clip.masks[0].bits[0, 0, 0] for clip in found] == [0, 1, 2, 3, 4]
    assert segmenter.calls == [5, 2, 3, 1, 2]


def test_segmenting_says_that_one_clip_has_no_room():
    with pytest.raises(ResourceError, match="small ran out of GPU memory on 1 clip; .*--device"):
        segmenting(SmallSegmenter(0)).masks([viewed(0), viewed(1)])
