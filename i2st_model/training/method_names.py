"""Which methods can be trained, for whoever mistypes the name of one."""

from i2st_model.methods import method_class, method_names
from pipeline.errors import BackendError
from pipeline.nearest_names import did_you_mean


def require_known(spec: str) -> None:
    """Refuse the name of no method, listing those that train first.

    Args:
        spec: name of a method, with or without options behind it.

    Raises:
        BackendError: no method has that name.
    """
    names, name = method_names(), spec.partition(":")[0]
    if name in names:
        return
    trainable = [one for one in names if _trains(one)]
    others = [one for one in names if one not in trainable]
    raise BackendError(
        f"unknown method {name!r}{did_you_mean(name, trainable) or did_you_mean(name, others)}; "
        f"trainable: {', '.join(trainable)} (without weights of their own: {', '.join(others)}); "
        "pass one of these"
    )


def _trains(name: str) -> bool:
    try:
        return method_class(name).trainable
    except BackendError:  # of another package, and broken
        return False
