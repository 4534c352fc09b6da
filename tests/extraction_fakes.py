"""An encoder and a segmenter that cost nothing, added as other packages add theirs; a dataset for
them and for the decoder of extraction_fake_decoder.py; and extractions in a process of their own.
"""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from extraction_fake_decoder import DEADLY

from pipeline.encoders import FrameFeatures
from pipeline.errors import VideoError
from pipeline.extract import extract
from pipeline.extraction.config import ExtractConfig
from pipeline.manifests import Manifest, Video
from pipeline.scheduling import interruption
from pipeline.segmenters import no_masks

CLASSES = {"train": ("clap", "jump"), "val": ("run",), "test": ("wave",)}
SIDE = 16


def add_entry_points(folder):
    """Make ``folder`` look like an installed distribution that adds the three fakes."""
    info = folder / "i2st_fakes-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: i2st-fakes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[i2st.decoders]\nfake = extraction_fake_decoder:FakeDecoder\n"
        "[i2st.encoders]\nfake = extraction_fakes:FakeEncoder\n"
        "[i2st.segmenters]\nspy = extraction_fakes:SpySegmenter\n"
    )


def make_dataset(root, *, per_class=5, does=None, frames=12):
    """Write fake videos, of which ``does`` says what goes wrong; return manifest and videos."""
    videos = []
    for split, names in CLASSES.items():
        for name in names:
            (root / name).mkdir(parents=True, exist_ok=True)
            for number in range(per_class):
                videos.append(write_video(root, split, name, number, does or {}, frames))
    return Manifest(name="fakes", title="Fakes", classes=CLASSES), videos


def write_video(root, split, name, number, does, frames):
    video_id = f"{name}/{number:02d}"
    what = {"seed": len(name) * 1000 + number, "frames": frames, "does": does.get(video_id, "")}
    (root / f"{video_id}.json").write_text(json.dumps(what))
    group = f"{name}-{number // 2}"
    return Video(
        video_id=video_id, path=f"{video_id}.json", class_name=name, split=split, group=group
    )


class FakeEncoder:
    """Mean colour of four quarters. All white is NaN, all black overflows float16, and what is
    deadly ends the process. Logs its process where I2ST_FAKE_PIDS says.
    """

    name = "fake"
    image_size = SIDE
    grid = 2
    token_dim = 3
    embedding_dim = 3
    frame_by_frame = False

    def __init__(self, model, *, device, grid, weights):
        self.largest_batch = int(model or 10**9)
        self.batches = []
        if log := os.environ.get("I2ST_FAKE_PIDS"):
            with open(log, "a") as file:
                file.write(f"{os.getpid()}\n")

    def fingerprint(self):
        return {"name": self.name, "grid": self.grid}

    def encode(self, views):
        if len(views) > self.largest_batch:
            raise torch.cuda.OutOfMemoryError("fake")
        self.batches.append(len(views))
        quarters = [quarter_means(view) for view in views.numpy()]
        tokens = torch.tensor(np.stack(quarters)).half()
        return FrameFeatures(tokens, tokens.float().mean(1).half())


def quarter_means(view):
    """(4, 3) float32. Mean colour of the quarters of a (16, 16, 3) view, row by row."""
    if view.min() == 255:
        return np.full((4, 3), np.nan, np.float32)
    if view.max() == 0:
        return np.full((4, 3), 1e6, np.float32)
    if view.min() == view.max() == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    half = SIDE // 2
    return np.stack(
        [
            view[y : y + half, x : x + half].reshape(-1, 3).mean(0, dtype=np.float32)
            for y in (0, half)
            for x in (0, half)
        ]
    )


class SpySegmenter:
    """Logs the videos it is shown; the actor's mask is made of the frame's index."""

    name = "spy"

    def __init__(self, model, *, device, masks):
        self.log = Path(model)

    def fingerprint(self):
        return {"name": self.name}

    def segment(self, clips):
        if len(clips) > 1 and any("03" in clip.video.video_id for clip in clips):
            raise VideoError("masks", "one of several clips has masks that do not fit")
        return [self._one(clip) for clip in clips]

    def _one(self, clip):
        if clip.video.video_id == "clap/03":
            raise VideoError("masks", "clap/03 has masks of 9 frames; 12 were needed")
        with open(self.log, "a") as log:
            log.write(f"{clip.video.split} {clip.video.video_id} {clip.prompts.actor[0]}\n")
        masks = no_masks(len(clip.frame_indices))
        masks.found[:, 0] = True
        masks.bits[:, 0] = clip.frame_indices[:, None]
        return masks


def config(root, out, **changes):
    settings = {
        "dataset": "fakes",
        "videos": root,
        "out": out,
        "encoder": "fake",
        "segmenter": "none",
        "decoder": "fake",
        "frames": 4,
        "decode_children": 0,
        "shard_videos": 7,
        "device": "cpu",
    }
    return ExtractConfig(**{**settings, **changes})


def run_in_child(folder, changes, environment):
    """Extract ``folder/videos`` to ``folder/out`` in a process of its own, which can be killed.

    Its parent is a server that has torch imported already, so that a run starts at once.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["extraction_fakes"])
    process = context.Process(target=_extract_alone, args=(folder, changes, environment))
    # The server takes over the path of modules from the environment alone.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        process.start()
    return process


def _extract_alone(folder, changes, environment):
    os.setsid()
    os.environ.update(environment)
    torch.set_num_threads(1)
    interruption.GRACE_SECONDS = float(os.environ.get("I2ST_FAKE_GRACE", 5))
    manifest, videos = read_dataset(folder / "videos")
    (folder / "started").touch()
    report = extract(config(folder / "videos", folder / "out", **changes), manifest, videos)
    if report.signal_number:
        raise SystemExit(128 + report.signal_number)


def read_dataset(root):
    """Manifest and videos that `make_dataset` wrote."""
    videos = [
        Video(
            video_id=f"{name}/{path.stem}",
            path=f"{name}/{path.name}",
            class_name=name,
            split=split,
            group=f"{name}-{int(path.stem) // 2}",
        )
        for split, names in CLASSES.items()
        for name in names
        for path in (root / name).glob("*.json")
    ]
    return Manifest(name="fakes", title="Fakes", classes=CLASSES), videos
