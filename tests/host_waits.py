"""Catches what would make a GPU wait for the CPU, on a machine without a GPU."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "aten::_local_scalar_dense",  # .item(), if tensor:
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave.Tensor",
    "aten::lift_fresh",  # torch.tensor(...) of Python numbers is copied to the GPU
}
INDEXING = {"aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}


def _refuse_list(tensor):
    raise AssertionError("tolist waits for the GPU")


class NoHostWaits(TorchDispatchMode):
    """While entered, an operation that waits for a GPU, were there one, is an AssertionError.

    ``seen`` are the names of those that do not, by which a test shows that its own were looked at.
    """

    def __init__(self):
        super().__init__()
        self.seen = set()
        self._patch = pytest.MonkeyPatch()

    def __enter__(self):
        # On a CPU it is no operation of its own.
        self._patch.setattr(torch.Tensor, "tolist", _refuse_list)
        return super().__enter__()

    def __exit__(self, *raised):
        super().__exit__(*raised)
        self._patch.undo()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.name()
        assert name not in WAITING, f"{name} waits for the GPU"
        if name.split(".")[0] in INDEXING or name in INDEXING:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            assert not masks, f"{name} under a boolean mask waits for the GPU"
        self.seen.add(name)
        return function(*args, **(kwargs or {}))
