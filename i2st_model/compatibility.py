"""Whether a trained network may be used with some shards, and on some classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.manifests import spelling
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


def require_unseen(train_classes: Sequence[str], evaluated: Sequence[str], *, run: Path) -> None:
    """Refuse to evaluate classes that training saw; spelling aside, so across datasets too.

    Args:
        train_classes: names that training saw.
        evaluated: names that are to be evaluated.
        run: folder of the training run, for the message.

    Raises:
        ConfigError: lists some of the classes.
    """
    seen = {spelling(name) for name in train_classes}
    leaked = [name for name in evaluated if spelling(name) in seen]
    if leaked:
        some = ", ".join(repr(name) for name in leaked[:5])
        more = f" and {len(leaked) - 5} more" if len(leaked) > 5 else ""
        raise ConfigError(
            f"{len(leaked)} of {len(evaluated)} evaluated classes were trained on by {run}: "
            f"{some}{more}; few-shot accuracy needs unseen classes; choose another split or run"
        )
