"""Makes a torchvision wheel whose compiled operators cannot load importable all the same.

PyPI's torchvision is a CUDA build. Beside a CPU-only torch its import ends in "operator
torchvision::nms does not exist" (pytorch/vision issues 8985 and 9085), and with it that of timm,
open_clip and segment_anything. None of the three needs more than non-maximum suppression from the
compiled part, so it is declared here in plain torch before the second attempt.
"""

import sys

import torch
from torch import Tensor

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# A torch.library.Library withdraws its operators when it is collected.
_libraries: list[torch.library.Library] = []


def ensure_torchvision() -> str:
    """Import torchvision, with a replacement for its missing operators where that is needed.

    Call it before the first import of open_clip, segment_anything or timm. A second call costs
    nothing.

    Returns:
        ``native`` where torchvision imports by itself, ``shim`` where nms was replaced.
    """
    if _libraries:
        return "shim"
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    else:
        return "native"
    _forget_half_imported_modules()
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    library.impl("nms", non_maximum_suppression, "CompositeExplicitAutograd")
    _libraries.append(library)
    from torchvision.ops import boxes

    boxes._assert_has_ops = lambda: None
    return "shim"


def non_maximum_suppression(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Greedy non-maximum suppression, the contract of ``torchvision::nms``.

    Args:
        boxes: (B, 4) float. Corners x0, y0, x1, y1 with x0 <= x1 and y0 <= y1, any unit.
        scores: (B,) float. Higher is kept first; equal scores keep their order.
        iou_threshold: in [0, 1]. A box that overlaps a kept one by more is dropped.

    Returns:
        (M,) int64. Indices of the kept boxes, best score first.
    """
    order = scores.argsort(descending=True, stable=True)
    kept = []
    while order.numel():
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[_iou(boxes[best], boxes[order]) <= iou_threshold]
    return torch.stack(kept) if kept else order


def _iou(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of one (4,) box with (B, 4) others: (B,)."""
    low = torch.maximum(box[:2], others[:, :2])
    high = torch.minimum(box[2:], others[:, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=1)
    area = (box[2:] - box[:2]).prod()
    areas = (others[:, 2:] - others[:, :2]).prod(dim=1)
    return intersection / (area + areas - intersection)


def _forget_half_imported_modules() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
