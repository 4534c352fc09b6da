"""Settings of a training run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import inf
from typing import Any, Literal

from i2st_model.config_checks import check_fields
from i2st_model.drawing.draws import WORD
from pipeline.errors import ConfigError

MaskUse = Literal["true", "shuffled", "off"]
ViewUse = Literal["all", "base"]
Selection = Literal["val", "last"]
Precision = Literal["fp32", "bf16"]

MAPPINGS = ("options", "network", "encoder")
"""Fields that hold settings of their own; `--set network.dim=64` reaches into them."""

RANGES: dict[str, tuple[float, float]] = {
    "episodes": (1, inf),
    "way": (2, inf),
    "shot": (1, inf),
    "queries": (1, inf),
    "seed": (0, WORD - 1),
    "pool_classes": (1, inf),
    "episodes_per_step": (1, inf),
    "pools_per_step": (1, inf),
    "frames": (1, inf),
    "alpha": (0, inf),
    "beta": (0, inf),
    "dice": (0, inf),
    "fast_rate": (0, inf),
    "slow_rate": (0, inf),
    "weight_decay": (0, inf),
    "warmup": (0, 1),
    "gradient_clip": (1e-6, inf),
    "val_every": (1, inf),
    "val_episodes": (2, inf),
    "state_every": (1, inf),
    "log_every": (1, inf),
    "cache_gib": (0, inf),
    "stem_tokens": (2, inf),
}
"""Least and largest value of each number."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """Every setting that decides the trained weights; stored in the run and in the checkpoint.

    Defaults without a source are our choice. "Measured" means on JHMDB-21 with frozen
    EfficientNet-Lite0 features.
    """

    method: str = "i2st"
    """What is trained: i2st, or any trainable method of `i2st_model.methods`. Options behind its
    name, as in hyrsm:heads=4, go into ``options``."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments of a method other than i2st."""
    episodes: int = 10_000
    """In all. At 64 a step these are 157 steps; measured: 100 to 200 are right for 12 classes, and
    800 lose 4 points, so more is not better with frozen features."""
    way: int = 5
    """The field's."""
    shot: int = 1
    """One model, trained at 1 shot, serves all shots (MoLo and CLIP-FSAR do so)."""
    queries: int = 2
    """Per class; with one shot a step holds 3 clips of each class. The field uses 5 to 7."""
    seed: int = 0
    pool_classes: int = 32
    """Classes of a step at most; their clips are encoded once and shared by its episodes."""
    episodes_per_step: int = 64
    """Divided evenly among the step's pools; they cost little beside the encoding of a pool."""
    pools_per_step: int = 1
    """Pools whose gradients a step averages, over all processes. More of them with fewer episodes
    each stand for the field's 16 episodes per step. They decide the weights, processes do not."""
    precision: Precision = "fp32"
    """bf16 encodes clips under autocast; losses, scores and weights stay float32. Measured: no gain
    on a CPU."""
    compile: bool = False
    """Compile the encoding of clips; slow to start, and its last bits differ."""
    frames: int | None = None
    """T, frames of a clip, out of the stored ones; None = all stored."""
    preset: str = "i2st"
    """Of the network; see `i2st_model.config.PRESETS`."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """Fields of NetworkConfig on top of the preset."""
    init_from: str | None = None
    """Folder of a finished run whose weights this one starts from; None draws them."""
    encoder: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the encoder that trains where the shards store frames."""
    alpha: float = 0.0
    """Weight of the base-class loss; 0 leaves the head out. Inferred from MoLo (0.1 to 0.8).
    Measured: 0.3 does not help."""
    beta: float = 1.0
    """Weight of the mask loss. Measured with mask-pooled instances."""
    dice: float = 1.0
    """Weight of dice beside the mask's cross-entropy. Paper: our choice (Mask2Former has 5:5)."""
    masks: MaskUse = "true"
    """shuffled gives each video the masks of another (a control); off ignores them."""
    flips: bool | None = None
    """Mirror clips and masks at random; None = unless the dataset is an ssv2, whose classes tell
    left from right."""
    views: ViewUse = "all"
    """Show each clip in one of the stored views, drawn at random; base leaves them aside. Without
    stored views both are the same."""
    fast_rate: float = 1e-3
    """Learning rate of projection and mask decoder (measured), and of all of another method, which
    may name its own: then `i2st train --method` takes that."""
    slow_rate: float = 1e-5
    """Learning rate of the rest. Measured by class cross-validation inside train and val: 1e-4 fits
    the 11 training classes better and new classes 0.8 points worse; more classes may bear more."""
    weight_decay: float = 0.05
    """Of AdamW, on every weight that trains, norms, biases and positions too. Code of HyRSM and
    CLIP-FSAR leaves norms and embeddings out, that of TRX has none. At the default rates a whole
    run takes at most 0.4 % off a weight, so it decides nothing."""
    warmup: float = 0.05
    """Share of the steps; a half cosine follows."""
    gradient_clip: float = 10.0
    """Largest norm. Measured norms are 2 to 9, so this stops accidents only."""
    select: Selection = "val"
    """Keep the weights that are best on fixed val episodes, or the last. Measured: 4 val classes
    can move against the test classes."""
    val_every: int = 20
    """Steps between looks at the val split; the end is always looked at."""
    val_episodes: int = 1000
    classes: tuple[str, ...] | None = None
    """Train on these instead of the train split; for cross-validation over classes."""
    val_classes: tuple[str, ...] | None = None
    """Select on these instead of the val split."""
    state_every: int = 20
    """Steps between saved states, hence the most that a kill can cost."""
    log_every: int = 1
    cache_gib: float = 2.0
    """Memory for the stem outputs of the train split, then of the val split; what does not fit is
    computed each time, with the same result."""
    stem_tokens: int = 50_000
    """Training tokens at most to which the stem is fitted."""
    device: str = "auto"
    """auto, cpu or cuda."""

    def __post_init__(self) -> None:
        for name in ("classes", "val_classes"):
            value = getattr(self, name)
            # A word would become a tuple of its letters.
            if value is not None and not isinstance(value, list | tuple):
                raise ConfigError(
                    f"{name}={value!r}; a list of class names was needed, such as [run, walk]; "
                    "pass one"
                )
            object.__setattr__(self, name, None if value is None else tuple(map(str, value)))
        for name in MAPPINGS:
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise ConfigError(
                    f"{name}={value!r}; settings by name were needed; write e.g. {name}.NAME=VALUE"
                )
        check_fields(self, RANGES)
        self._part_method()
        if self.episodes_per_step % self.pools_per_step:
            raise ConfigError(
                f"episodes_per_step={self.episodes_per_step} with pools_per_step="
                f"{self.pools_per_step}; a multiple was needed; raise episodes_per_step to "
                f"{-(-self.episodes_per_step // self.pools_per_step) * self.pools_per_step}"
            )

    def _part_method(self) -> None:
        """A run is found by the plain name of its method."""
        if ":" not in self.method:
            return
        # Not above: most configs have a plain name, and shall not wait for a method's torch.
        from i2st_model.methods import method_class
        from i2st_model.methods.options import check_options, split_spec

        name, typed = split_spec(self.method)
        options = {**self.options, **check_options(name, method_class(name), typed)}
        object.__setattr__(self, "method", name)
        object.__setattr__(self, "options", options)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values from which `train_config` rebuilds this config."""
        values = asdict(self)
        for name in ("classes", "val_classes"):
            values[name] = None if values[name] is None else list(values[name])
        return values


def train_config(values: Mapping[str, Any]) -> TrainConfig:
    """Build a config from a run's JSON.

    Args:
        values: what `TrainConfig.to_dict` returned.

    Returns:
        The config, checked again.

    Raises:
        ConfigError: a key is no field, or a value is out of range.
    """
    known = {one.name for one in fields(TrainConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"unknown train setting {unknown[0]!r}; known: {', '.join(sorted(known))}; "
            "use the version of i2st that wrote it"
        )
    return TrainConfig(**values)
