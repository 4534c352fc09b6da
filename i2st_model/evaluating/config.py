"""Settings of an evaluation."""

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import ConfigError

Precision = Literal["float32", "float64"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float64")


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Which episodes, and how they are computed. The defaults are the field's."""

    split: str = "test"
    classes: tuple[str, ...] | None = None
    """Evaluate on these instead of the split's; for cross-validation over classes."""
    way: int = 5
    shot: int = 1
    queries: int = 1
    """Per class."""
    episodes: int = 10_000
    seed: int = 0
    """Of the episodes: the same seed gives all methods the same episodes."""
    disjoint_groups: bool = False
    """Keep query and support clips of one source apart. The field does not; it is harder."""
    drop_small_classes: bool = False
    """Leave out classes with too few videos instead of refusing."""
    batch_episodes: int | None = None
    """Episodes at a time, None = what suits the device; decides time, memory and rounding alone."""
    precision: Precision = "float32"
    """float64 computes everything in double precision: slower, for checks."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        for name, least in (("episodes", 2), ("batch_episodes", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name}={value}; at least {least} is needed; raise {name}")
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"precision={self.precision!r} is unknown; one of {', '.join(PRECISIONS)} is "
                "needed; pass one"
            )
