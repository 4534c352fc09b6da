"""Few-shot methods over cached features, one per file, behind one protocol, `FewShotMethod`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from pipeline.registry import find_builder, known_names

if TYPE_CHECKING:  # listing the methods shall not import torch
    from i2st_model.methods.base import FewShotMethod

Features = Literal["tokens", "frame_embedding"]
GROUP = "i2st.methods"


def _protonet(**options: Any) -> FewShotMethod:
    from i2st_model.methods.protonet import ProtoNet

    return ProtoNet(**options)


def _otam(**options: Any) -> FewShotMethod:
    from i2st_model.methods.otam import Otam

    return Otam(**options)


def _bi_mhm(**options: Any) -> FewShotMethod:
    from i2st_model.methods.bi_mhm import BiMhm

    return BiMhm(**options)


def _i2st(**options: Any) -> FewShotMethod:
    from i2st_model.methods.i2st import I2st

    return I2st(**options)


METHODS: dict[str, Callable[..., FewShotMethod]] = {
    "bi_mhm": _bi_mhm,
    "i2st": _i2st,
    "otam": _otam,
    "protonet": _protonet,
}


def get_method(name: str, **options: Any) -> FewShotMethod:
    """Build the method called ``name``.

    Args:
        name: a key of `METHODS`, or an entry that a package adds under ``i2st.methods``.
        **options: of the method's constructor; ``network`` for i2st.

    Returns:
        The method; call its ``fit`` before anything else.

    Raises:
        BackendError: no method has that name.
    """
    method: FewShotMethod = find_builder(name, builtin=METHODS, group=GROUP, kind="method")(
        **options
    )
    return method


def method_names() -> list[str]:
    """Sorted names of all methods there are; imports none of them."""
    return known_names(METHODS, GROUP)
