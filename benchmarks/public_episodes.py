"""Evaluation as released few-shot code runs it, episode by episode, to be measured against.

Re-implemented to the letter of what it does, generously: its clips lie encoded in memory, where the
released code decodes and encodes them anew. Nothing here was copied.

Shape letters: N way, K shot, Q query clips, T frames, C channels of a frame, V videos.
"""

import random
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.public_heads import public_otam

Head = Callable[[Tensor, Tensor], Tensor]
"""(N, K, T, C) support and (Q, T, C) query to (Q, N) logits."""


def public_draw(
    labels: Sequence[int], classes: int, way: int, shot: int, queries: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Draw an episode by scanning all labels once per class and once per video.

    That is what the sampler does that TRX, STRM, TEAM, TA2N and HyRSM's family share.
    """
    support, query = [], []
    for chosen in random.sample(range(classes), way):
        total = len([label for label in labels if label == chosen])
        rows = []
        for number in random.sample(range(total), shot + queries):
            rows.append([row for row, label in enumerate(labels) if label == chosen][number])
        support.append(rows[:shot])
        query.append(rows[shot:])
    return support, query


def public_episode(head: Head, clips: Tensor, support: Tensor, query: Tensor) -> Tensor:
    """Predict the queries of one episode and take its accuracy, as an evaluation loop does.

    Args:
        head: of the method.
        clips: (V, T, C) encoded clips.
        support: (N, K) rows.
        query: (N, q) rows.

    Returns:
        (Q,) predicted positions.
    """
    way, shot = support.shape
    support_clips = torch.stack([clips[row] for row in support.flatten().tolist()])
    query_clips = torch.stack([clips[row] for row in query.flatten().tolist()])
    logits = head(support_clips.view(way, shot, *clips.shape[1:]), query_clips)
    predicted = functional.softmax(logits, dim=1).argmax(dim=1)
    labels = torch.arange(way).repeat_interleave(query.shape[1])
    (predicted == labels).float().mean().item()
    return predicted


def public_protonet(support: Tensor, query: Tensor) -> Tensor:
    """Squared distances to the mean of each class's pooled clips, class by class."""
    pooled = query.mean(dim=1)
    distances = []
    for clips in support:
        prototype = clips.mean(dim=1).mean(dim=0)
        distances.append((pooled - prototype).pow(2).sum(dim=1))
    return -torch.stack(distances, dim=1)


def public_bi_mhm(support: Tensor, query: Tensor) -> Tensor:
    """Bidirectional mean Hausdorff distance to mean clips, all pairs of an episode at once."""
    prototypes = torch.stack([clips.mean(dim=0) for clips in support])
    (Q, T, C), N = query.shape, len(prototypes)
    frames, others = query.reshape(-1, C), prototypes.reshape(-1, C)
    lengths = frames.norm(dim=1)[:, None] * others.norm(dim=1)[None]
    costs = 1 - (frames @ others.T) / lengths
    costs = costs.view(Q, T, N, T).permute(0, 2, 1, 3)
    return -(costs.min(dim=3)[0].sum(dim=2) + costs.min(dim=2)[0].sum(dim=2))


def public_otam_of_means(support: Tensor, query: Tensor) -> Tensor:
    """OTAM on the mean over shots of each frame, as CLIP-FSAR's setting MERGE_BEFORE."""
    return public_otam(support.mean(dim=1, keepdim=True), query, 0.5)


def public_otam_of_shots(support: Tensor, query: Tensor) -> Tensor:
    """OTAM against every shot, distances averaged, as fsar-lib."""
    return public_otam(support, query, 0.5)
