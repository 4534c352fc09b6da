"""Which file holds SAM's weights: one that is named, one that lies in a usual place, or a download.

In this order: the file that the caller names; the environment variable I2ST_SAM_CHECKPOINT;
``weights/<published name>`` in the working folder; the cache folder; the publisher's address.
"""

import os
from pathlib import Path

from pipeline.errors import BackendError
from pipeline.noted_files import note_file
from pipeline.segmenters.sam.published_weights import PublishedFile, fetch

VARIABLE = "I2ST_SAM_CHECKPOINT"
DEFAULT_TYPE = "vit_b"
WEIGHTS_FOLDER = Path("weights")
ADDRESS = "https://dl.fbaipublicfiles.com/segment_anything"

PUBLISHED = {
    "vit_b": (
        "sam_vit_b_01ec64.pth",
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    "vit_l": (
        "sam_vit_l_0b3195.pth",
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    "vit_h": (
        "sam_vit_h_4b8939.pth",
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
}
"""Type -> name and sha256 of the file that segment_anything's authors published (0.38, 1.2 and
2.6 GB)."""

OTHERWISE = "give `--sam FILE`, `--segmenter precomputed --mask-files DIR`, or `--segmenter none`"
"""What a user without weights can do, for messages."""


def find_checkpoint(spec: str) -> tuple[Path, str | None]:
    """Find the weights that a setting stands for.

    Args:
        spec: ``vit_b``, ``vit_l`` or ``vit_h``; a file; empty for ``vit_b`` or whatever
            I2ST_SAM_CHECKPOINT names.

    Returns:
        The file, and the type it must be, where the setting says one.

    Raises:
        BackendError: a named file is absent, or the weights cannot be downloaded.
        ResourceError: the cache folder cannot take them.
    """
    if spec and spec not in PUBLISHED:
        return _existing(Path(spec), "the setting"), None
    named = os.environ.get(VARIABLE)
    if named:
        return _existing(Path(named), VARIABLE), spec or None
    sam_type = spec or DEFAULT_TYPE
    name, digest = PUBLISHED[sam_type]
    usual = WEIGHTS_FOLDER / name
    note_file(usual)
    if usual.is_file():
        return usual, sam_type
    file = PublishedFile("SAM weights", name, ADDRESS, digest, OTHERWISE)
    return fetch(file), sam_type


def _existing(path: Path, source: str) -> Path:
    if path.is_file():
        return path
    raise BackendError(
        f"SAM weights {path}, which {source} names, are absent; needed: a segment_anything "
        f"checkpoint, or {', '.join(PUBLISHED)}; {OTHERWISE}"
    )
