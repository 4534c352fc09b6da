"""Values of a manifest file, checked for their type: one clear line for each fault."""

from typing import Any

from pipeline.errors import ManifestError
from pipeline.manifests.paths import check_name, check_text
from pipeline.manifests.types import SPLITS
from pipeline.nearest_names import did_you_mean


def mapping(raw: Any, what: str, known: set[str] | None) -> dict[str, Any]:
    """Return ``raw`` if it is a mapping with text keys, all of them known.

    Args:
        raw: the value in the file.
        what: where it stands, for the error message.
        known: the keys that mean something; None where any key may stand.

    Returns:
        ``raw``, typed.

    Raises:
        ManifestError: it is not.
    """
    if not isinstance(raw, dict):
        raise ManifestError(f"{what} is {type(raw).__name__}; a mapping is needed; correct it")
    for key in raw:
        if not isinstance(key, str):
            raise ManifestError(f"{what} has the key {key!a:.40}; text is needed; quote it")
        if known is not None and key not in known:
            raise ManifestError(
                f"{what} has the unknown key {key!a:.80}{did_you_mean(key, known)}; "
                f"known: {', '.join(sorted(known))}; correct it"
            )
    return raw


def text_value(raw: Any, what: str) -> str:
    """Return ``raw`` if it is printable text.

    Args:
        raw: the value in the file.
        what: where it stands, for the error message.

    Returns:
        ``raw``, typed.

    Raises:
        ManifestError: it is not.
    """
    if not isinstance(raw, str):
        raise ManifestError(f"{what} is {type(raw).__name__}; text is needed; quote it")
    return check_text(raw, what=what, max_bytes=1000)


def name_list(raw: Any, what: str) -> tuple[str, ...]:
    """Return ``raw`` as a tuple if it is a list of plain names.

    Args:
        raw: the value in the file.
        what: where it stands, for the error message.

    Returns:
        The names, in their order.

    Raises:
        ManifestError: it is not.
    """
    if not isinstance(raw, list):
        raise ManifestError(
            f"{what} is {type(raw).__name__}; a list of names is needed; correct it"
        )
    return tuple(check_name(text_value(item, what), what=what) for item in raw)


def count(raw: Any, what: str) -> int:
    """Return ``raw`` if it is a count.

    Args:
        raw: the value in the file.
        what: where it stands, for the error message.

    Returns:
        ``raw``, typed.

    Raises:
        ManifestError: it is not.
    """
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw < 10**9:
        raise ManifestError(f"{what} is {raw!a:.40}; a count is needed; correct it")
    return raw


def counts(raw: Any, what: str) -> dict[str, int] | None:
    """Return ``raw`` if it is absent, or maps splits to counts.

    Args:
        raw: the value in the file.
        what: where it stands, for the error message.

    Returns:
        Split -> count; None where absent.

    Raises:
        ManifestError: it is neither.
    """
    if raw is None:
        return None
    return {split: count(n, what) for split, n in mapping(raw, what, set(SPLITS)).items()}
