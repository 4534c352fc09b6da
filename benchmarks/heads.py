"""OTAM and TRX beside the loops of released code: one episode, and 10,000 from prepared videos.

    python -m benchmarks.heads [--rounds 7] [--episodes 10000] [--loop 4]

Prints Markdown. Both sides see the same random features of 8 frames of 512 and the same weights, on
one thread, in turn (A B A B); figures are medians of process CPU time, which other users of the
machine disturb less than wall time: quote the ratios. The released code is re-implemented in
`benchmarks.public_heads`. Evaluations: 1,292 videos in 10 classes, one query per class; per-episode
medians times the number of episodes, the one pass over the videos added on our side. What was
expected was written down before the first run.
"""

import argparse
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from benchmarks.public_heads import PublicTrx, public_otam
from benchmarks.random_videos import (
    EMBEDDING,
    FRAMES,
    NUM_VIDEOS,
    SHOT,
    WAY,
    cpu_seconds,
    drawn,
    medians_in_turn,
)
from i2st_model.evaluating.engine import PreparedVideos, predict
from i2st_model.evaluating.scoring import prepare_videos
from i2st_model.methods import get_method
from i2st_model.methods.base import FewShotMethod
from i2st_model.methods.clips import Clips, TrainStatistics
from i2st_model.methods.trx import Trx

QUERIES = 25
EXPECTED = {
    "OTAM forward": 4,
    "OTAM forward and backward": 5,
    "TRX forward": 6,
    "TRX forward and backward": 5.5,
    "1-shot": 25,
    "5-shot": 22,
}
"""Ratios, before the first run: OTAM has a tenth of the operations and equal products of frames;
TRX has a fifth of the arithmetic, of which a tenth is left per episode once videos are prepared."""
AS_IN_THE_PAPER: dict[str, Any] = {"dropout": 0.0, "centre": False, "scale": False}
"""TRX's, on frames as they are."""

Timed = Callable[[], Tensor]
Method = TypeVar("Method", bound=FewShotMethod)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--loop", type=int, default=4, help="episodes of the loop per round")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print_heads(flags.rounds)
    print_evaluations(flags.rounds, flags.episodes, flags.loop)


def print_heads(rounds: int) -> None:
    """Table of milliseconds for one episode."""
    print(
        f"| {WAY}-way {SHOT}-shot, {QUERIES} queries | released code's loop, ms | here, ms |",
        end="",
    )
    print(" ratio (expected) | difference |")
    print("|---|---|---|---|---|")
    support = torch.randn(WAY, SHOT, FRAMES, EMBEDDING)
    query = torch.randn(QUERIES, FRAMES, EMBEDDING)
    otam = fitted(get_method("otam", centre=False, shots="after_matching"))
    trx = fitted(Trx(**AS_IN_THE_PAPER)).train()
    public_trx = PublicTrx(trx, FRAMES)
    frames = [support.clone().requires_grad_(), query.clone().requires_grad_()]
    heads: list[tuple[str, Timed, Timed, list[Tensor]]] = [
        (
            "OTAM",
            # Theirs is not divided by the number of frames.
            lambda: public_otam(frames[0], frames[1], 0.5) / FRAMES,
            lambda: scored(otam, frames[0], frames[1]),
            frames,
        ),
        (
            "TRX",
            lambda: public_trx(support, query),
            lambda: scored(trx, support, query),
            list(trx.parameters()),
        ),
    ]
    for name, public, ours, leaves in heads:
        with torch.no_grad():
            print_row(f"{name} forward", public, ours, rounds)
        theirs, mine = with_gradients(public, leaves), with_gradients(ours, leaves)
        print_row(f"{name} forward and backward", theirs, mine, rounds)
    print()


def print_row(name: str, public: Timed, ours: Timed, rounds: int) -> None:
    """Time two functions in turn and compare what they return."""
    expected, found = public(), ours()
    difference = ((found - expected).abs().max() / expected.abs().max()).item()
    assert difference < 1e-4, f"{name} differs by {difference:.0e}"
    theirs_ms, ours_ms = medians_in_turn(public, ours, rounds)
    print(
        f"| {name} | {1e3 * theirs_ms:.1f} | {1e3 * ours_ms:.1f} | "
        f"{theirs_ms / ours_ms:.1f}x ({EXPECTED[name]}x) | {difference:.0e} |",
        flush=True,
    )


def print_evaluations(rounds: int, episodes: int, loop: int) -> None:
    """Table of CPU seconds per ``episodes`` episodes of TRX."""
    print(f"| TRX, {episodes:,} episodes | released code's loop, s | videos once, s |", end="")
    print(" episodes, s | ratio (expected) | same predictions |")
    print("|---|---|---|---|---|---|")
    features = torch.randn(NUM_VIDEOS, FRAMES, EMBEDDING)
    trx = fitted(Trx(**AS_IN_THE_PAPER)).eval()
    with torch.no_grad():
        prepared: dict[str, Tensor] = {}
        once = cpu_seconds(lambda: prepared.update(prepared_by(trx, features)))
        for shot in (1, SHOT):
            print_evaluation(trx, features, prepared, once, shot, rounds, episodes, loop)


def print_evaluation(
    trx: Trx,
    features: Tensor,
    prepared: dict[str, Tensor],
    once: float,
    shot: int,
    rounds: int,
    episodes: int,
    loop: int,
) -> None:
    """One row."""
    block = 10 * loop
    some = drawn(NUM_VIDEOS, block, shot=shot)
    videos = PreparedVideos(method=trx, tensors=prepared, rows=np.arange(NUM_VIDEOS))
    public = PublicTrx(trx, FRAMES)

    def ours() -> Tensor:
        return torch.from_numpy(predict(videos, some, videos.rows)[:loop, :, 0])

    def theirs() -> Tensor:
        each = zip(some.support[:loop], some.query[:loop, :, 0], strict=True)
        return torch.stack([public(features[s], features[q]).argmax(dim=1) for s, q in each])

    same = (ours() == theirs()).float().mean().item()
    theirs_s, ours_s = medians_in_turn(theirs, ours, rounds)
    theirs_s, ours_s = theirs_s / loop * episodes, ours_s / block * episodes
    print(
        f"| {WAY}-way {shot}-shot | {theirs_s:,.0f} | {once:.1f} | {ours_s:.0f} | "
        f"{theirs_s / (once + ours_s):.1f}x ({EXPECTED[f'{shot}-shot']}x) | {100 * same:.1f} % |",
        flush=True,
    )


def prepared_by(trx: Trx, features: Tensor) -> dict[str, Tensor]:
    """What the method makes of all videos."""
    rows = np.arange(len(features))
    return prepare_videos(rows, lambda some: trx.prepare(Clips(features=features[some])))


def with_gradients(head: Timed, leaves: list[Tensor]) -> Timed:
    """The head, its loss and the gradients of all leaves, which it returns as one vector."""
    targets = torch.arange(QUERIES) % WAY

    def run() -> Tensor:
        loss = torch.nn.functional.cross_entropy(head(), targets)
        return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, leaves)])

    return run


def scored(method: FewShotMethod, support: Tensor, query: Tensor) -> Tensor:
    """Logits (Q, N) of one episode, its clips prepared for it."""
    prepared = [method.prepare(Clips(features=clips)) for clips in (support.flatten(0, 1), query)]
    classes = {
        name: value.view(1, WAY, SHOT, *value.shape[1:]) for name, value in prepared[0].items()
    }
    return method.score(classes, {name: value[None] for name, value in prepared[1].items()})[0]


def fitted(method: Method) -> Method:
    """The method, made for embeddings of EMBEDDING."""
    method.fit(TrainStatistics(embedding_dim=EMBEDDING))
    return method


if __name__ == "__main__":
    main()
