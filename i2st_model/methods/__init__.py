"""Few-shot methods over cached features, one per file, behind one protocol, `FewShotMethod`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import BackendError
from pipeline.registry import find_builder, known_names

if TYPE_CHECKING:  # listing the methods shall not import torch
    from i2st_model.methods.base import FewShotMethod

Features = Literal["tokens", "frame_embedding"]
GROUP = "i2st.methods"


def _imported(module: str, method: str) -> Callable[[], type[FewShotMethod]]:
    def load() -> type[FewShotMethod]:
        found: type[FewShotMethod] = getattr(import_module(f"{__name__}.{module}"), method)
        return found

    return load


METHODS: dict[str, Callable[[], type[FewShotMethod]]] = {
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


def method_class(name: str) -> type[FewShotMethod]:
    """Return the class of the method called ``name``; imports only that one.

    Args:
        name: a key of `METHODS`, or an entry that a package adds under ``i2st.methods``.

    Returns:
        The class.

    Raises:
        BackendError: no method has that name, or that of another package is broken.
    """
    found: Any = find_builder(name, builtin=METHODS, group=GROUP, kind="method")
    if name in METHODS:
        built_in: type[FewShotMethod] = found()
        return built_in
    return _of_package(name, found)


def _of_package(name: str, found: Any) -> type[FewShotMethod]:
    from i2st_model.methods.base import FewShotMethod

    if isinstance(found, type) and issubclass(found, FewShotMethod):
        if not found.__abstractmethods__:
            return found
        lacking = " and ".join(sorted(found.__abstractmethods__))
        raise BackendError(
            f"method {name!r} is broken: its entry point leads to {found.__name__}, which does not "
            f"define {lacking}; a whole method was needed; define {lacking}, or pass another method"
        )
    raise BackendError(
        f"method {name!r} is broken: its entry point leads to {found!r:.80}; a subclass of "
        "i2st_model.methods.base.FewShotMethod was needed; mend the entry point of its package, or "
        "pass another method"
    )


def get_method(spec: str, **options: Any) -> FewShotMethod:
    """Build a method.

    Args:
        spec: its name, or its name and options as in ``otam:temperature=0.1:centre=false``.
        **options: of the method's constructor; ``network`` for i2st.

    Returns:
        The method; call its ``fit`` before anything else. Its ``name`` is the spec.

    Raises:
        BackendError: no method has that name.
        ConfigError: the method has no such option, or a value is not allowed.
    """
    # Not above: listing methods shall not wait for YAML.
    from i2st_model.methods.options import check_options, split_spec

    name, typed = split_spec(spec)
    build = method_class(name)
    method = build(**check_options(name, build, {**options, **typed}))
    if typed:
        method.name = spec
    return method


def method_names() -> list[str]:
    """Sorted names of all methods there are; imports none of them."""
    return known_names(METHODS, GROUP)
