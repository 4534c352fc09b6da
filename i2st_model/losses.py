"""Losses of training: episode cross-entropy, base-class cross-entropy, mask supervision.

Shape letters: E episodes, Q query clips, N way, B clips, T frames, S side of the mask.

Training minimises ``episode_loss + alpha base_class_loss + beta mask_loss``.
"""

from torch import Tensor
from torch.nn import functional

DICE_SMOOTHING = 1.0
"""Added to both sides of the dice ratio. Paper: our choice."""


def episode_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of (E, Q, N) logits against (E, Q) integer classes, mean over E and Q."""
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten())


def base_class_loss(base_logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy over all training classes, mean over clips and what of each is classified.

    Paper: inferred from MoLo (clips) or HyRSM (frames). Measured: does not help on JHMDB-21.

    Args:
        base_logits: (B, T, classes) float. Of each frame, or with T = 1 of the clip.
        classes: (B,) integer. Class of each clip.

    Returns:
        Scalar float.
    """
    each = classes.unsqueeze(1).expand(base_logits.shape[:2])
    return functional.cross_entropy(base_logits.flatten(0, 1), each.flatten())


def mask_loss(
    mask_logits: Tensor, target: Tensor, valid: Tensor, *, dice_weight: float = 1.0
) -> Tensor:
    """Binary cross-entropy plus weighted dice, mean over frames that have a mask.

    Paper: supervision of the instance mask is stated; the two terms are inferred from
    Mask2Former/SEEM, their weights 1:1 and the smoothing are our choice.

    Args:
        mask_logits: (B, T, S, S) float. Union over instances.
        target: (B, T, S, S) float in [0, 1]. Share of each cell that the action covers; ignored in
            frames that are not valid.
        valid: (B, T) bool. Whether the frame's mask was found.
        dice_weight: weight of dice beside the cross-entropy's 1.

    Returns:
        Scalar float; 0, with zero gradients, where no frame is valid.

    Raises:
        ValueError: the shapes differ.
    """
    if mask_logits.shape != target.shape or valid.shape != target.shape[:2]:
        raise ValueError(
            f"mask logits have shape {tuple(mask_logits.shape)}, targets {tuple(target.shape)}, "
            f"valid {tuple(valid.shape)}; make the targets with the network's mask_side"
        )
    kept = valid.unsqueeze(-1).unsqueeze(-1)
    truth = target.to(mask_logits.dtype).masked_fill(~kept, 0.0).flatten(2)
    logits = mask_logits.flatten(2)
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = logits.sigmoid()
    overlap = 2 * (probability * truth).sum(-1) + DICE_SMOOTHING
    dice = 1 - overlap / (probability.sum(-1) + truth.sum(-1) + DICE_SMOOTHING)
    frames = (entropy.mean(-1) + dice_weight * dice) * valid.to(mask_logits.dtype)
    return frames.sum() / valid.sum().clamp_min(1)
