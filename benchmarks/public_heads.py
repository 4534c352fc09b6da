"""OTAM and TRX as the field's released code runs them, re-implemented to be measured against.

Shape letters: N way, K shot, Q query clips, T frames, C channels of a frame, P tuples of a clip, D
channels of a key or value. One episode at a time, as there; nothing here was copied.
"""

import itertools
import math

import torch
from torch import Tensor, nn

from i2st_model.methods.trx import Trx, positions
from i2st_model.methods.trx_tuples import TupleAttention


def public_otam(support: Tensor, query: Tensor, temperature: float) -> Tensor:
    """Negative alignment distance, mean over shots: (N, K, T, C), (Q, T, C) to (Q, N).

    Every cell of the table of accumulated costs is one assignment in place, for all pairs of clips
    at once; the soft minimum takes exponentials of accumulated costs.
    """
    N, K, T, C = support.shape
    shots, frames = support.reshape(-1, C), query.reshape(-1, C)
    lengths = frames.norm(dim=1)[:, None] * shots.norm(dim=1)[None]
    costs = 1 - (frames @ shots.T) / lengths
    costs = costs.view(len(query), T, N * K, T).permute(0, 2, 1, 3)
    both = _accumulated(costs, temperature) + _accumulated(costs.transpose(2, 3), temperature)
    classes = [both[:, way * K : (way + 1) * K].mean(dim=1) for way in range(N)]
    return -torch.stack(classes, dim=1)


def _accumulated(costs: Tensor, temperature: float) -> Tensor:
    costs = nn.functional.pad(costs, (1, 1))
    total = torch.zeros_like(costs)
    rows, columns = costs.shape[2:]
    for column in range(1, columns):
        total[:, :, 0, column] = costs[:, :, 0, column] + total[:, :, 0, column - 1]
    for row in range(1, rows):
        for column in range(1, columns):
            moves = [total[:, :, row - 1, column - 1], total[:, :, row, column - 1]]
            if column in (1, columns - 1):
                moves.append(total[:, :, row - 1, column])
            summed = torch.stack([torch.exp(-move / temperature) for move in moves]).sum(dim=0)
            step = -temperature * torch.log(summed)
            total[:, :, row, column] = costs[:, :, row, column] + step
    return total[:, :, -1, -1]


class PublicTrx(nn.Module):
    """TRX with every tuple made, projected and compared; classes and softmaxes in loops."""

    def __init__(self, method: Trx, num_frames: int) -> None:
        super().__init__()
        self.cardinalities = method.tuples
        self.tuples = {
            count: [
                torch.tensor(chosen)
                for chosen in itertools.combinations(range(num_frames), int(count))
            ]
            for count in method.tuples
        }

    def forward(self, support: Tensor, query: Tensor) -> Tensor:
        """Logits (Q, N) of (N, K, T, C) and (Q, T, C) frames."""
        encoding = positions(*query.shape[1:]).to(query)
        scores = [
            _tuple_scores(attention, self.tuples[count], support + encoding, query + encoding)
            for count, attention in self.cardinalities.items()
            if isinstance(attention, TupleAttention)
        ]
        return torch.stack(scores, dim=-1).mean(dim=-1)


def _tuple_scores(
    attention: TupleAttention, tuples: list[Tensor], support: Tensor, query: Tensor
) -> Tensor:
    N, K = support.shape[:2]
    support_BPC = _joined(support.flatten(0, 1), tuples)
    query_QPC = _joined(query, tuples)
    support_keys = attention.norm(attention.keys(support_BPC))
    query_keys = attention.norm(attention.keys(query_QPC))
    support_values, query_values = attention.values(support_BPC), attention.values(query_QPC)
    scores = query.new_zeros(len(query), N)
    for way in range(N):
        shots = slice(way * K, (way + 1) * K)
        keys, values = support_keys[shots], support_values[shots]
        prototypes = _prototypes(query_keys, keys, values)
        distance = torch.linalg.vector_norm(query_values - prototypes, dim=(1, 2)) ** 2
        scores[:, way] = -distance / len(tuples)
    return scores


def _prototypes(query_keys: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Of (Q, P, D) query keys and one class's (K, P, D) keys and values: (Q, P, D)."""
    Q, P, D = query_keys.shape
    products = torch.matmul(query_keys.unsqueeze(1), keys.transpose(1, 2)) / math.sqrt(D)
    products = products.permute(0, 2, 1, 3).reshape(Q, P, -1)
    weights = torch.cat([torch.softmax(products[clip], dim=1) for clip in range(Q)])
    weights = weights.view(Q, P, len(keys), P).permute(0, 2, 1, 3)
    return torch.matmul(weights, values).sum(dim=1)


def _joined(clips: Tensor, tuples: list[Tensor]) -> Tensor:
    """Frames of each tuple end to end: (B, T, C) to (B, P, W C)."""
    return torch.stack([clips[:, chosen].flatten(1) for chosen in tuples], dim=1)
