import subprocess
import sys

import pytest
import torch

from pipeline.torchvision_shim import ensure_torchvision, non_maximum_suppression


def greedy_loop(boxes, scores, threshold):
    """Keep a box if its overlap with every box kept before it is at most the threshold."""

    def area(box):
        return (box[2] - box[0]) * (box[3] - box[1])

    def overlap(a, b):
        width = min(a[2], b[2]) - max(a[0], b[0])
        height = min(a[3], b[3]) - max(a[1], b[1])
        shared = max(width, 0) * max(height, 0)
        return shared / (area(a) + area(b) - shared)

    boxes, scores = boxes.tolist(), scores.tolist()
    kept = []
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(overlap(boxes[index], boxes[k]) <= threshold for k in kept):
            kept.append(index)
    return kept


def random_boxes(count, seed):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 10
    sizes = torch.rand(count, 2, generator=generator, dtype=torch.float64) * 5 + 0.1
    scores = torch.rand(count, generator=generator, dtype=torch.float64)
    return torch.cat([corners, corners + sizes], dim=1), scores


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_non_maximum_suppression_matches_a_loop(threshold):
    for seed in range(10):
        boxes, scores = random_boxes(40, seed)
        found = non_maximum_suppression(boxes, scores, threshold)
        assert found.tolist() == greedy_loop(boxes, scores, threshold)


def test_non_maximum_suppression_of_no_boxes_is_empty():
    kept = non_maximum_suppression(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def test_torchvision_nms_keeps_what_the_loop_keeps_after_the_shim():
    how = ensure_torchvision()
    assert how in ("native", "shim")
    assert ensure_torchvision() == how
    from torchvision.ops import batched_nms, nms

    boxes, scores = random_boxes(30, 5)
    kept = nms(boxes.float(), scores.float(), 0.4)
    assert kept.tolist() == greedy_loop(boxes.float(), scores.float(), 0.4)
    two_classes = torch.arange(30) % 2
    assert len(batched_nms(boxes.float(), scores.float(), two_classes, 0.4)) >= len(kept)


def test_shim_makes_the_three_vision_packages_importable_in_a_fresh_process(repository):
    code = (
        "from pipeline.torchvision_shim import ensure_torchvision; ensure_torchvision();"
        "import open_clip, segment_anything;"
        "print(open_clip.get_model_config('ViT-B-16')['embed_dim'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.strip() == "512", done.stderr
