"""Whether a trained network may be used with some shards: their features are of one kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.shards.fingerprint import differences

DECISIVE = ("encoder", "view", "frames", "decoder")
"""Keys of the shards' fingerprint that decide what a token means. Manifest, prompts and segmenter
may differ: they decide which videos there are and how training was supervised."""


def require_compatible(
    trained: Mapping[str, Any], present: Mapping[str, Any], *, shards: Path, run: Path
) -> None:
    """Refuse shards whose features differ in kind from those the network was trained on.

    Args:
        trained: fingerprint in the checkpoint.
        present: fingerprint of the shards.
        shards: folder of the shards, for the message.
        run: folder of the run, for the message.

    Raises:
        ConfigError: names every key that differs, with both values.
    """
    differing = differences(_decisive(trained), _decisive(present))
    if differing:
        raise ConfigError(
            f"{run} was trained on other features than {shards} holds: {', '.join(differing)}; "
            "the same features were needed; extract with the same settings, or train on these"
        )


def _decisive(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: fingerprint.get(key) for key in DECISIVE}
    if isinstance(kept["decoder"], Mapping):
        # Decoders are exact, so another version of the same one gives the same frames.
        kept["decoder"] = kept["decoder"].get("name")
    return kept
