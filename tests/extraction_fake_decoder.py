"""A decoder that costs nothing and misbehaves on demand, added as other packages add theirs.

A fake video is a JSON file: {"seed": int, "frames": int, "does": what goes wrong, if anything}.
Apart from the other fakes, so that a decoding child that needs it starts without torch.
"""

import json
import os
import signal
import time

import numpy as np

from pipeline.decoding.types import DecodedClip

DEADLY = 7


def pictures(what):
    """(frames, 24, 32, 3) uint8 of a fake video."""
    plain = {"white": 255, "black": 0, "grey": 128, "deadly": DEADLY}
    if what["does"] in plain:
        return np.full((what["frames"], 24, 32, 3), plain[what["does"]], np.uint8)
    generator = np.random.default_rng(what["seed"])
    return generator.integers(0, 256, (what["frames"], 24, 32, 3), np.uint8)


def is_held(path):
    """Whether a file ``held`` beside the classes names the video's class."""
    try:
        return path.parent.name == (path.parents[1] / "held").read_text()
    except FileNotFoundError:
        return False


class FakeDecoder:
    """Reads fake videos, misbehaves as they say, and logs every call beside the classes."""

    name = "fake"

    def __init__(self, *, max_pixels):
        self.max_pixels = max_pixels

    def version(self):
        return os.environ.get("I2ST_FAKE_VERSION", "fake 1.0")

    def read(self, path, choose):
        with open(path.parents[1] / "decoded.log", "a") as log:
            log.write(f"{path.parent.name}/{path.stem}\n")
        what = json.loads(path.read_text())
        if what["does"] == "hang":
            while True:
                pass
        if what["does"] == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        if what["does"] == "raise":
            raise ValueError("moov atom not found")
        time.sleep(0.02 if what["does"] == "slow" else 0)
        while is_held(path):
            time.sleep(0.01)
        frames = pictures(what)
        expected = len(frames) * (2 if what["does"] == "short" else 1)
        indices = np.asarray(choose(len(frames)), np.int32)
        return DecodedClip(
            frames=frames[indices],
            frame_indices=indices,
            num_frames_decoded=len(frames),
            num_frames_expected=expected,
            num_damaged_packets=0,
        )
