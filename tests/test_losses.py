"""Losses against loops, and their gradients where nothing is supervised."""

import math

import pytest
import torch

from i2st_model.losses import base_class_loss, episode_loss, mask_loss
from i2st_model.perception import union


def loop_mask_loss(logits, target, valid, dice_weight=1.0):
    total, frames = 0.0, 0
    for b in range(len(logits)):
        for t in range(len(logits[b])):
            if not valid[b][t]:
                continue
            probability = [1 / (1 + math.exp(-x)) for x in logits[b][t].flatten().tolist()]
            truth = target[b][t].flatten().tolist()
            entropy = [
                -(y * math.log(p) + (1 - y) * math.log(1 - p))
                for p, y in zip(probability, truth, strict=True)
            ]
            overlap = 2 * sum(p * y for p, y in zip(probability, truth, strict=True)) + 1
            dice = 1 - overlap / (sum(probability) + sum(truth) + 1)
            total += sum(entropy) / len(entropy) + dice_weight * dice
            frames += 1
    return total / frames


def test_mask_loss_matches_a_loop_over_valid_frames():
    logits = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    target = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    valid = torch.tensor([[True, False, True], [False, True, True]])
    expected = loop_mask_loss(logits, target, valid)
    assert mask_loss(logits, target, valid).item() == pytest.approx(expected, abs=1e-12)


def test_mask_loss_weighs_dice_beside_the_entropy():
    logits, target = torch.randn(1, 2, 4, 4).double(), torch.rand(1, 2, 4, 4).double()
    valid = torch.ones(1, 2, dtype=torch.bool)
    expected = loop_mask_loss(logits, target, valid, dice_weight=2.5)
    found = mask_loss(logits, target, valid, dice_weight=2.5).item()
    assert found == pytest.approx(expected, abs=1e-12)


def test_mask_loss_is_near_zero_for_a_sure_and_right_mask():
    target = torch.zeros(1, 1, 8, 8)
    target[..., 2:6, 2:6] = 1
    logits = (target * 2 - 1) * 30
    assert mask_loss(logits, target, torch.ones(1, 1, dtype=torch.bool)).item() < 1e-4


def test_mask_loss_ignores_what_invalid_frames_hold():
    logits, target = torch.randn(1, 2, 4, 4), torch.rand(1, 2, 4, 4)
    valid = torch.tensor([[True, False]])
    expected = mask_loss(logits[:, :1], target[:, :1], valid[:, :1])
    target[:, 1] = math.nan
    torch.testing.assert_close(mask_loss(logits, target, valid), expected)


def test_mask_loss_is_zero_with_zero_gradients_when_no_frame_is_valid():
    logits = torch.randn(2, 2, 4, 4, requires_grad=True)
    loss = mask_loss(logits, torch.full_like(logits, math.nan), torch.zeros(2, 2).bool())
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().max() == 0


def test_mask_loss_has_finite_gradients_for_extreme_logits():
    logits = torch.tensor([[[[1e4, -1e4], [0.0, 50.0]]]], requires_grad=True)
    target = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
    mask_loss(logits, target, torch.ones(1, 1).bool()).backward()
    assert torch.isfinite(logits.grad).all()


def test_mask_loss_refuses_targets_of_another_side():
    with pytest.raises(ValueError, match=r"targets \(1, 1, 7, 7\)"):
        mask_loss(torch.zeros(1, 1, 28, 28), torch.zeros(1, 1, 7, 7), torch.ones(1, 1).bool())


def test_union_is_the_log_of_the_summed_exponentials():
    logits = torch.tensor([[[[0.0]], [[math.log(3.0)]]]])
    assert union(logits).item() == pytest.approx(math.log(4.0), abs=1e-6)


def test_episode_loss_matches_a_loop_over_queries():
    logits = torch.randn(2, 3, 5, dtype=torch.float64)
    labels = torch.tensor([[0, 4, 2], [1, 1, 3]])
    expected = 0.0
    for e in range(2):
        for q in range(3):
            scores = logits[e, q].tolist()
            expected += math.log(sum(map(math.exp, scores))) - scores[labels[e, q]]
    assert episode_loss(logits, labels).item() == pytest.approx(expected / 6, abs=1e-12)


def test_base_class_loss_of_even_logits_is_the_log_of_the_number_of_classes():
    value = base_class_loss(torch.zeros(4, 1, 12), torch.tensor([0, 3, 11, 5]))
    assert value.item() == pytest.approx(math.log(12), abs=1e-6)


def test_base_class_loss_of_frames_is_the_mean_over_frames():
    logits = torch.randn(3, 4, 5, dtype=torch.float64)
    classes = torch.tensor([4, 0, 2])
    each = [-logits[b, t].log_softmax(0)[classes[b]] for b in range(3) for t in range(4)]
    torch.testing.assert_close(base_class_loss(logits, classes), torch.stack(each).mean())
