"""Dataset manifests: one YAML file per dataset, carried by the wheel; plus the version of i2st.

This package imports nothing outside the standard library, so that `i2st --version` and listings
stay instant.
"""

from pathlib import Path

__version__ = "0.1.0"

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """Names of the datasets that ship with i2st, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def path_of(name: str) -> Path:
    """Path of the YAML file of one shipped dataset; the file may not exist."""
    return FOLDER / f"{name}.yaml"
