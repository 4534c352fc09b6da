"""Named places at which a test can kill the writer.

``I2ST_FAILPOINT=shard.renamed:kill`` makes the process kill itself (SIGKILL, no clean-up) there.
The table is complete: a test visits every entry, and code may only name an entry.
"""

import os
import signal

VARIABLE = "I2ST_FAILPOINT"

_STEPS = {
    "tmp_open": "the temporary file exists and is empty",
    "half_written": "half of its bytes are written",
    "written": "all of its bytes are written, none is forced to disk",
    "fsynced": "its bytes are on disk, under the temporary name",
    "renamed": "it has its final name, the folder is not yet forced to disk",
    "folder_fsynced": "it is there for good",
}

FAILPOINTS = {
    "image.before": "no byte of the shard exists",
    "image.built": "the shard is complete in memory",
    **{
        f"{kind}.{step}": f"{meaning} ({kind})"
        for kind in ("shard", "sidecar", "index")
        for step, meaning in _STEPS.items()
    },
    "sidecars.first_removed": "index.json lists all shards, one sidecar is gone",
    "sidecars.removed": "index.json lists all shards, no sidecar is left",
}


def failpoint(name: str) -> None:
    """Die here if the environment asks for it."""
    assert name in FAILPOINTS, name
    if os.environ.get(VARIABLE) == f"{name}:kill":
        os.kill(os.getpid(), signal.SIGKILL)
