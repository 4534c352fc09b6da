"""The manifests that ship with i2st, by name and edition."""

from dataclasses import replace

import data_manifests
from pipeline.errors import ManifestError
from pipeline.manifests.schema import read_manifest
from pipeline.manifests.types import Manifest
from pipeline.nearest_names import did_you_mean


def load_manifest(name: str, *, edition: str | None = None) -> Manifest:
    """Manifest of a dataset that ships with i2st.

    Args:
        name: e.g. ``hmdb51``; ``kinetics100-hyrsm`` is the edition ``hyrsm`` of ``kinetics100``.
        edition: which published lists choose the videos; None for the one that ``name`` says.

    Returns:
        The manifest, its edition chosen.

    Raises:
        ManifestError: no such dataset or edition.
    """
    base = name
    if base not in data_manifests.names():
        base, _, suffix = name.rpartition("-")
        if base not in data_manifests.names() or edition not in (None, suffix):
            raise _unknown(name)
        edition = suffix
    manifest = read_manifest(data_manifests.path_of(base))
    if edition is None or edition == manifest.edition:
        return manifest
    if edition not in manifest.lists:
        raise _unknown(f"{base}-{edition}")
    return replace(manifest, name=f"{base}-{edition}", edition=edition)


def known_manifests() -> list[str]:
    """Names that ``load_manifest`` accepts, other editions included."""
    names = []
    for base in data_manifests.names():
        manifest = read_manifest(data_manifests.path_of(base))
        others = sorted(set(manifest.lists) - {manifest.edition})
        names += [base, *(f"{base}-{edition}" for edition in others)]
    return names


def _unknown(name: str) -> ManifestError:
    known = known_manifests()
    return ManifestError(
        f"unknown dataset {name!a:.80}{did_you_mean(name, known)}; known: {', '.join(known)}; "
        "pass one of these; videos of your own need none: `i2st extract --videos DIR`"
    )
