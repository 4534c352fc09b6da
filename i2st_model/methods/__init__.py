"""Few-shot methods over cached features, one per file, behind one protocol, `FewShotMethod`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pipeline.registry import find_builder, known_names

if TYPE_CHECKING:  # listing the methods shall not import torch
    from i2st_model.methods.base import FewShotMethod

Features = Literal["tokens", "frame_embedding"]
GROUP = "i2st.methods"


def _imported(module: str, method: str) -> Callable[..., FewShotMethod]:
    def build(**options: Any) -> FewShotMethod:
        built: FewShotMethod = getattr(import_module(f"{__name__}.{module}"), method)(**options)
        return built

    return build


METHODS: dict[str, Callable[..., FewShotMethod]] = {
    "bi_mhm": _imported("bi_mhm", "BiMhm"),
    "clip_zero_shot": _imported("clip_zero_shot", "ClipZeroShot"),
    "hyrsm": _imported("hyrsm", "HyRSM"),
    "i2st": _imported("i2st", "I2st"),
    "linear_probe": _imported("linear_probe", "LinearProbe"),
    "otam": _imported("otam", "Otam"),
    "protonet": _imported("protonet", "ProtoNet"),
    "random": _imported("chance", "Chance"),
    "simpleshot": _imported("simpleshot", "SimpleShot"),
    "trx": _imported("trx", "Trx"),
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
