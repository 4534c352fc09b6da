"""What a sweep varies: the ablations that have names, or settings and values as they are typed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from pipeline.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Ablation:
    """Settings that are compared, each a list of name=value words."""

    about: str
    variants: tuple[tuple[str, ...], ...]
    """The empty one is the settings as given; the first is what the others are compared to."""
    ways: tuple[int, ...] = ()
    """Ways to evaluate at, where these are what is varied."""


def _each(name: str, values: Sequence[object], *also: str) -> tuple[tuple[str, ...], ...]:
    return tuple((*also, f"{name}={value}") for value in values)


ABLATIONS = {
    "frames": Ablation(
        about="frames of a clip", variants=_each("frames", (2, 4, 6, 8, 10, 12, 16))
    ),
    "instances": Ablation(
        about="instance perception: with masks, without their loss, with others' masks, without",
        variants=((), ("beta=0",), ("masks=shuffled",), ("instances=none",)),
    ),
    "attention": Ablation(
        about="spatial and temporal attention",
        variants=(
            (),
            *_each("attention_parts", ("spatial", "temporal")),
            *_each("spatial_temporal_pairs", (0, 2)),
        ),
    ),
    "matching": Ablation(
        about="local and global matching",
        variants=(
            (),
            *_each("global_weight", (0, 1)),
            *_each("global_matching", ("otam", "compound")),
        ),
    ),
    "num_instances": Ablation(
        about="instance queries per frame",
        variants=_each("num_instances", (1, 2, 4, 8), "instances=queries"),
    ),
    "weights": Ablation(
        about="weights of the mask loss and of global matching",
        variants=(
            (),
            *_each("beta", (0.05, 0.1, 0.2, 0.5)),
            *_each("global_weight", (0, 0.1, 0.5, 0.7, 1)),
        ),
    ),
    "ways": Ablation(about="classes per episode", variants=((),), ways=(5, 6, 7, 8, 9, 10)),
}
"""Those that have names. Other prompts are other shards: sweep each and compare the runs."""


def choose_ablation(name: str | None, axes: Mapping[str, Sequence[str]], *, grid: bool) -> Ablation:
    """Return the ablation of a name, or the one over some settings.

    Args:
        name: a key of `ABLATIONS`; None where settings are given.
        axes: setting -> its values; empty where a name is given.
        grid: see `variants_over`.

    Returns:
        What is varied.

    Raises:
        ConfigError: both or neither are given, or nothing has that name.
    """
    if (name is None) == (not axes):
        raise ConfigError(
            f"sweep has {'neither a name nor' if name is None else 'a name and'} --over; one of "
            f"both was needed; pass {', '.join(ABLATIONS)}, or e.g. --over beta=0,0.5,1"
        )
    if name is None:
        return Ablation(about="", variants=variants_over(axes, grid=grid))
    if name not in ABLATIONS:
        raise ConfigError(
            f"unknown sweep {name!r}; known: {', '.join(ABLATIONS)}; pass one of these, or --over"
        )
    return ABLATIONS[name]


def variants_over(axes: Mapping[str, Sequence[str]], *, grid: bool) -> tuple[tuple[str, ...], ...]:
    """Combine axes into variants.

    Args:
        axes: setting -> its values.
        grid: all combinations; else one setting at a time, after the settings as given where there
            are several axes.

    Returns:
        Words name=value of each variant.
    """
    words = [[f"{name}={value}" for value in values] for name, values in axes.items()]
    if grid or len(words) == 1:
        return tuple(product(*words))
    return ((), *((word,) for axis in words for word in axis))
