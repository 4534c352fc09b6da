"""Checks of what a checkpoint says of itself: a file from elsewhere may say anything."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import CheckpointError


def require_sound(path: Path, values: Mapping[str, Any]) -> None:
    """Refuse metadata whose values are not what the fields of `CheckpointInfo` are.

    Args:
        path: of the checkpoint, for the message.
        values: by field name; absent ones are left to their defaults.

    Raises:
        CheckpointError: names the first such field, with its value.
    """
    _require(path, values, _SOUND, "")
    _require(path, values["train"], _SOUND_IN_TRAIN, "train.")


def damaged(path: Path, why: str) -> CheckpointError:
    """Error for a checkpoint that was not written so, in one line."""
    return CheckpointError(
        f"{path} cannot be used: {why[:200]}; an unchanged safetensors file written by i2st was "
        "needed; restore it, or train again"
    )


def _require(
    path: Path, values: Mapping[str, Any], sound: Mapping[str, Callable[[Any], bool]], where: str
) -> None:
    for name, is_sound in sound.items():
        if name in values and not is_sound(values[name]):
            raise damaged(path, f"its {where}{name} is {values[name]!r:.60}")


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_word(value: Any) -> bool:
    """Text that stands in a line of a message as it is."""
    return isinstance(value, str) and value.isprintable()


def _is_list_of(is_one: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(is_one, value))


def _is_whole(low: int, high: int) -> Callable[[Any], bool]:
    # True is an int to Python.
    return lambda value: type(value) is int and low <= value <= high


def _is_percent_or_none(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 100)


_INT64_MAX = 2**63 - 1
_is_count = _is_whole(0, _INT64_MAX)
_is_positive = _is_whole(1, _INT64_MAX)
_is_int64 = _is_whole(-_INT64_MAX - 1, _INT64_MAX)

_SOUND: dict[str, Callable[[Any], bool]] = {
    "network": _is_object,
    "train": _is_object,
    "fingerprint": _is_object,
    "dataset": _is_word,
    "digest": _is_word,
    "train_classes": _is_list_of(lambda value: isinstance(value, str)),
    "step": _is_count,
    "val_accuracy": _is_percent_or_none,
    "selected": lambda value: value in ("val", "last"),
    "method": _is_word,
    "options": _is_object,
    "train_video_hashes": _is_list_of(_is_int64),
    "train_feature_hashes": _is_list_of(_is_int64),
    "chosen_on": _is_list_of(lambda value: isinstance(value, str)),
    "version": _is_word,
}
_SOUND_IN_TRAIN: dict[str, Callable[[Any], bool]] = {
    "encoder": _is_object,
    "frames": lambda value: value is None or _is_positive(value),
    "seed": _is_count,
}
"""Of the train config: what is read of it later."""
