"""Extractions in a process of its own, into which world_faults.c is preloaded.

    python world_child.py FOLDER WHAT

extracts the fake videos of FOLDER/videos once per fault and prints what came of it as JSON.
"""

import ctypes
import errno
import json
import os
import shutil
import sys
import time
from pathlib import Path

import extraction_fakes as fakes
import pytest
import torch

from pipeline.errors import I2STError
from pipeline.extract import extract
from pipeline.shards.verify import verify

CALLS = {"write": 1, "fsync": 2, "rename": 3, "read": 4, "create": 5}
EVERY_OTHER, NEVER = 0, 10**9
SHORT = -1
YEAR_SECONDS = 365 * 86400


class DeathError(Exception):
    """A run ends here, as if it had been killed."""


def attempt(folder, *, dies_at=None, on_progress=None):
    """Extract; return what the run came to, without the figures that vary."""

    def failpoint(name):
        if name == dies_at:
            raise DeathError

    try:
        manifest, videos = fakes.read_dataset(folder / "videos")
        config = fakes.config(folder / "videos", folder / "out", shard_videos=4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pipeline.shards.files.failpoint", failpoint)
            report = extract(config, manifest, videos, on_progress=on_progress)
        return {"digest": report.digest, "new": report.num_new}
    except I2STError as error:
        return {"exit_code": error.exit_code, "message": str(error)}
    except Exception as error:
        return {"unexpected": repr(error)}


def under_fault(world, folder, call, error, number, *, before="nothing"):
    """A run under a fault, a healthy one after it, and what verify says."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    if before != "nothing":
        attempt(folder, dies_at="index.tmp_open" if before == "unfinished" else None)
    fault(world, call, error, number, out)
    faulty = attempt(folder)
    num_calls = world.world_calls()
    world.world_set(0, 0, 0, b"")
    return {
        "call": call,
        "error": errno.errorcode.get(error, "short"),
        "number": number,
        "before": before,
        "num_calls": num_calls,
        "faulty": faulty,
        "healthy": attempt(folder),
        "problems": verify(out),
        "left": [path.name for path in out.glob("*.tmp")],
    }


def fault(world, call, error, number, out):
    world.world_set(CALLS[call], error, number, os.fsencode(out))


def all_faults(world, folder):
    """One run per call that extraction makes, and runs under what must be overcome."""
    results = []
    for call in ("write", "fsync", "rename", "create"):
        results += each_call(world, folder, call, "nothing")
    for before in ("unfinished", "finished"):
        results += each_call(world, folder, "read", before)
        results.append(under_fault(world, folder, "read", SHORT, EVERY_OTHER, before=before))
        results.append(under_fault(world, folder, "read", errno.EINTR, EVERY_OTHER, before=before))
    results.append(under_fault(world, folder, "write", SHORT, EVERY_OTHER))
    for call in ("write", "fsync", "create"):
        results.append(under_fault(world, folder, call, errno.EINTR, EVERY_OTHER))
    return results


def each_call(world, folder, call, before):
    """EIO at every call of a run, and a full disk or quota at the one in the middle."""
    num_calls = under_fault(world, folder, call, errno.EIO, NEVER, before=before)["num_calls"]
    faults = [(errno.EIO, number) for number in range(1, num_calls + 1)]
    if call != "read":
        faults += [(errno.ENOSPC, num_calls // 2), (errno.EDQUOT, num_calls)]
    return [under_fault(world, folder, call, *one, before=before) for one in faults]


def elsewhere(world, folder):
    """One run while the clock jumps back a year, under another umask and working folder."""
    os.umask(0o077)
    before = time.time()
    for path in (folder / "videos").rglob("*.json"):
        os.utime(path, (2.5e9, 2.5e9))
    os.chdir(folder / "videos" / "clap")
    result = attempt(folder, on_progress=lambda progress: world.world_jump(-YEAR_SECONDS))
    return {**result, "seconds": time.time() - before}


def main():
    torch.set_num_threads(1)
    world = ctypes.CDLL(None)
    world.world_set.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_char_p)
    world.world_calls.restype = ctypes.c_long
    world.world_jump.argtypes = (ctypes.c_long,)
    what = {"all_faults": all_faults, "elsewhere": elsewhere}[sys.argv[2]]
    print(json.dumps(what(world, Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
