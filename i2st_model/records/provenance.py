"""What made the predictions of a result, as result files keep it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Provenance:
    """What made the predictions."""

    method: str
    uses_class_names: bool
    """Whether the method knows the names of the classes it is tested on."""
    digest: str
    """Of the shards that were read; the episodes may have been drawn from others."""
    precision: str
    """float32 or float64."""
    frames: int | None = None
    """T, of the clips that were seen; None in files from before it was kept."""
    encoder_run: str | None = None
    """Name of the run whose trained encoder made the features; None for features as stored."""
    encoder_sha256: str | None = None
    """Of that run's checkpoint."""
    run: str | None = None
    """Name of the training run's folder; None for methods without training."""
    checkpoint_sha256: str | None = None
    """Of the run's checkpoint."""
    train_seed: int | None = None
    """Seed of the training run."""
    training: Mapping[str, Any] | None = None
    """What else decided the weights: settings, shards, train classes; None in files from before it
    was kept."""

    def __post_init__(self) -> None:
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"frames={self.frames}; clips have at least one")

    def run_words(self) -> str:
        """Which training run made the weights: its name, its seed and what its checkpoint holds."""
        seed = "" if self.train_seed is None else f", seed {self.train_seed}"
        return f"run {self.run}{seed}, checkpoint {(self.checkpoint_sha256 or 'unknown')[:12]}"

    def seen(self) -> str:
        """What of the videos the method saw, in words that differ where that does."""
        length = f"{self.frames} frames" if self.frames else "an unknown number of frames"
        if self.encoder_sha256 is None:
            return length
        if self.encoder_sha256 == self.checkpoint_sha256:
            return f"{length} by its own encoder"
        return f"{length} by the encoder of run {self.encoder_run} ({self.encoder_sha256[:8]})"


def provenance_values(made_by: Provenance) -> dict[str, Any]:
    """JSON values from which `read_provenance` makes it again."""
    return {name: getattr(made_by, name) for name in _KINDS}


def read_provenance(said: Mapping[str, Any]) -> Provenance:
    """Read what a result file says of a result.

    Args:
        said: JSON values; names beside these say other things.

    Returns:
        The provenance; what files from before it was kept do not say is None.

    Raises:
        ValueError: a value is of another type, or out of range; the message is a clause.
    """
    values: dict[str, Any] = {name: said.get(name) for name in _KINDS}
    for name, kinds in _KINDS.items():
        if type(values[name]) not in kinds:
            raise ValueError(f"the {name} of a result is {values[name]!r:.40}")
    return Provenance(**values)


_TEXT_OR_NONE = (str, type(None))
_KINDS: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "uses_class_names": (bool,),
    "digest": (str,),
    "precision": (str,),
    "frames": (int, type(None)),
    "encoder_run": _TEXT_OR_NONE,
    "encoder_sha256": _TEXT_OR_NONE,
    "run": _TEXT_OR_NONE,
    "checkpoint_sha256": _TEXT_OR_NONE,
    "train_seed": (int, type(None)),
    "training": (dict, type(None)),
}
