"""Few-shot methods over cached features, one per file, behind one protocol.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, T frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pipeline.registry import find_builder, known_names

if TYPE_CHECKING:  # listing the methods shall not import torch
    from torch import Tensor

Features = Literal["tokens", "frame_embedding"]
GROUP = "i2st.methods"


class Method(Protocol):
    """A few-shot classifier: describes each clip once, then scores episodes of descriptors."""

    name: str
    needs: Features
    """Which cached feature `describe` takes."""

    def fit(self, train_mean: Tensor) -> None:
        """Take what the training split gives: (E,) float, the mean frame embedding."""
        ...

    def describe(self, features: Tensor) -> dict[str, Tensor]:
        """Describe (B, T, ...) float clips, each by itself; every value has first axis B."""
        ...

    def logits(self, query: Mapping[str, Tensor], support: Mapping[str, Tensor]) -> Tensor:
        """Score descriptors with leading axes (E, Q) and (E, N, K): (E, Q, N) float logits."""
        ...


def _protonet(**options: Any) -> Method:
    from i2st_model.methods.protonet import ProtoNet

    return ProtoNet(**options)


def _otam(**options: Any) -> Method:
    from i2st_model.methods.otam import Otam

    return Otam(**options)


def _bi_mhm(**options: Any) -> Method:
    from i2st_model.methods.bi_mhm import BiMhm

    return BiMhm(**options)


def _i2st(**options: Any) -> Method:
    from i2st_model.methods.i2st import I2st

    return I2st(**options)


METHODS: dict[str, Callable[..., Method]] = {
    "bi_mhm": _bi_mhm,
    "i2st": _i2st,
    "otam": _otam,
    "protonet": _protonet,
}


def get_method(name: str, **options: Any) -> Method:
    """Build the method called ``name``.

    Args:
        name: a key of `METHODS`, or an entry that a package adds under ``i2st.methods``.
        **options: of the method's constructor; ``network`` for i2st.

    Returns:
        The method; call its ``fit`` before it describes anything.

    Raises:
        BackendError: no method has that name.
    """
    method: Method = find_builder(name, builtin=METHODS, group=GROUP, kind="method")(**options)
    return method


def method_names() -> list[str]:
    """Sorted names of all methods there are; imports none of them."""
    return known_names(METHODS, GROUP)
