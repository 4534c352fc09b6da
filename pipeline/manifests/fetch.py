"""One published list, read or downloaded, and refused unless it is what was recorded."""

import hashlib
import http.client
import urllib.parse
import urllib.request
from pathlib import Path

from pipeline.errors import ManifestError
from pipeline.manifests.text import read_text
from pipeline.manifests.types import ListSource

RAW_BASE = "https://raw.githubusercontent.com"
TIMEOUT_SECONDS = 30.0
MAX_LIST_BYTES = 32_000_000


def fetch_list(
    record: ListSource, source: Path | None, *, by_hand: str, base_url: str = RAW_BASE
) -> tuple[bytes, str]:
    """Bytes of a published list, and the file or address that they came from.

    Args:
        record: where it lies, and its sha256 and count of lines.
        source: the list as published; None to download it.
        by_hand: the command that takes a file, for the error message.
        base_url: where GitHub's raw files are served.

    Returns:
        The bytes as published, and their origin.

    Raises:
        ManifestError: it cannot be read or fetched, or is not what was recorded.
    """
    if source is not None:
        read_text(source, max_bytes=MAX_LIST_BYTES)  # refuses pipes and other encodings
        content, origin = source.read_bytes(), str(source)
    else:
        origin = record.url(base_url)
        content = _download(origin, by_hand)
    sha256, lines = hashlib.sha256(content).hexdigest(), len(content.splitlines())
    if (sha256, lines) != (record.sha256, record.lines):
        raise ManifestError(
            f"{origin} has {lines} lines and sha256 {sha256[:12]}; the published list has "
            f"{record.lines} lines and {record.sha256[:12]}; download {record.url()} by hand, "
            f"unchanged, and run `{by_hand}`"
        )
    return content, origin


def _download(url: str, by_hand: str) -> bytes:
    advice = f"download it by hand and run `{by_hand}`"
    quoted = urllib.parse.quote(url, safe=":/%@")
    try:
        with urllib.request.urlopen(quoted, timeout=TIMEOUT_SECONDS) as reply:
            content: bytes = reply.read(MAX_LIST_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as fault:
        reason = getattr(fault, "reason", None) or fault
        raise ManifestError(f"{url} cannot be fetched ({str(reason)!a:.120}); {advice}") from fault
    if len(content) > MAX_LIST_BYTES:
        raise ManifestError(f"{url} is larger than {MAX_LIST_BYTES} bytes; {advice}")
    return content
