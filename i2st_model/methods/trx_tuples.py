"""Cross-attention between tuples of frames, without ever making the tuples.

Shape letters: B clips, E episodes, Q query clips, N way, K shot, S = N K support clips, T frames, W
cardinality, P tuples of a clip, M = W T rows (slot of a tuple, frame), C channels of a frame, D
channels of a key or value.
"""

import functools
import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class TupleAttention(nn.Module):
    """TRX's distance for ordered tuples of one cardinality (arXiv:2101.06184, Sec. 3.2).

    The projection of a tuple is a sum over its slots, ``W_1 f_a + W_2 f_b + W_3 f_c``, so it is
    made once per row (slot, frame) and clip. Layer normalisation of a key subtracts its mean, which
    is linear too, and divides by a number that the products of rows give. Products of tuples are
    then sums of entries of the small table of products of rows, and the distance to a class
    prototype ``A V`` is ``|v|^2 - 2 A (V v) + A (V V^T) A^T``, ``A`` summed from tuples onto rows.
    This is the paper's score in another order of sums: 56 triplets of 8 frames have 24 rows. A bias
    of the values is left out: it cancels, since the attention to a class sums to one.
    """

    def __init__(self, channels: int, *, cardinality: int, width: int) -> None:
        super().__init__()
        self.cardinality = cardinality
        self.keys = nn.Linear(cardinality * channels, width)
        self.values = nn.Linear(cardinality * channels, width, bias=False)
        self.norm = nn.LayerNorm(width)

    def prepare(self, frames: Tensor) -> dict[str, Tensor]:
        """Project the frames of each clip to what its tuples are sums of.

        Products of a query row and a support row are ``(W_q f) . (W_s g)``, or the same as
        ``(W_s^T W_q f) . g`` where that is shorter (C < D) and no training follows: more work per
        clip, less per pair of clips.

        Args:
            frames: (B, T, C) float.

        Returns:
            ``keys`` and ``values`` (B, M, D), projected rows; or, where products are shorter so,
            (B, T, C) with ``query_keys`` and ``query_values`` (B, W, M, C) to multiply them with.
            ``key_scale`` (B, P), one over the deviation of each key; ``key_bias`` and ``key_shift``
            (B, M), what the biases of projection and LayerNorm add to products; ``square`` (B,),
            summed squares of the values.
        """
        keys_WDC = self._by_slot(self.keys.weight, frames.shape[2])
        keys_WDC = keys_WDC - keys_WDC.mean(dim=1, keepdim=True)
        values_WDC = self._by_slot(self.values.weight, frames.shape[2])
        keys_BMD, values_BMD = _rows(frames, keys_WDC), _rows(frames, values_WDC)
        # Half precision is for the projections alone: variances are sums of large products.
        with torch.autocast(frames.device.type, enabled=False):
            parts = self._from_rows(keys_BMD, values_BMD)
            gain_D = self.norm.weight
            if self.training or frames.shape[2] >= gain_D.shape[0]:
                return parts | {"keys": keys_BMD * gain_D, "values": values_BMD}
            query_BMD = keys_BMD * gain_D.square()
            return parts | {
                "query_keys": torch.einsum("bmd,wdc->bwmc", query_BMD, keys_WDC),
                "query_values": torch.einsum("bmd,wdc->bwmc", values_BMD, values_WDC),
                "keys": frames,
                "values": frames,
            }

    def distance(self, support: Mapping[str, Tensor], query: Mapping[str, Tensor]) -> Tensor:
        """Squared distance of values to the query's own class prototypes, mean over tuples.

        Args:
            support: of `prepare`, gathered: leading axes (E, N, K).
            query: the same with leading axes (E, Q).

        Returns:
            (E, Q, N) float.
        """
        P, M = query["key_scale"].shape[2], support["key_shift"].shape[3]
        incidence_PM = tuple_rows(M // self.cardinality, self.cardinality).to(query["square"])
        weights_EQPNX = self._row_weights(support, query, incidence_PM)  # X = K M from here on
        products = _products(_left(query, "values"), support["values"].flatten(1, 2))
        cross_EQPNX = torch.matmul(incidence_PM, products.flatten(3)).view(weights_EQPNX.shape)
        cross_EQN = (weights_EQPNX * cross_EQPNX).sum(dim=(2, 4))
        squares_EQN = _prototype_squares(weights_EQPNX, support)
        return (query["square"].unsqueeze(2) - 2 * cross_EQN + squares_EQN) / P

    def _from_rows(self, keys: Tensor, values: Tensor) -> dict[str, Tensor]:
        """What `prepare` makes of projected rows (B, M, D) beside the rows."""
        T = keys.shape[1] // self.cardinality
        incidence_PM = tuple_rows(T, self.cardinality).to(keys)
        gain_D, bias_D = self.norm.weight, self.keys.bias - self.keys.bias.mean()
        # Every tuple has one row of the first slot: there the bias is added once.
        whole_BMD = torch.cat([keys[:, :T] + bias_D, keys[:, T:]], dim=1)
        variance_BP = _squares(incidence_PM, whole_BMD) / bias_D.shape[0]
        # A product of two keys has the square of the bias once: half is from either.
        half = (bias_D * gain_D).square().sum() / (2 * self.cardinality)
        return {
            "key_scale": (variance_BP + self.norm.eps).rsqrt(),
            "key_bias": keys @ (bias_D * gain_D.square()) + half,
            "key_shift": whole_BMD @ (gain_D * self.norm.bias),
            "square": _squares(incidence_PM, values).sum(dim=1),
        }

    def _row_weights(
        self, support: Mapping[str, Tensor], query: Mapping[str, Tensor], incidence_PM: Tensor
    ) -> Tensor:
        """Attention of each query tuple to a class, summed onto rows: (E, Q, P, N, K M)."""
        E, N, K = support["square"].shape
        temperature = 1 / math.sqrt(self.keys.out_features)
        products = _products(_left(query, "keys"), support["keys"].flatten(1, 2))
        rows_EQPY = torch.matmul(incidence_PM, products.flatten(3))  # Y = N K M
        # A support tuple is a sum of W rows: what belongs to a query tuple is shared among them.
        bias_EQP = query["key_bias"] @ incidence_PM.T / self.cardinality
        rows_EQPY = rows_EQPY + bias_EQP.unsqueeze(3) + support["key_bias"].view(E, 1, 1, -1)
        rows_EQPY = rows_EQPY * (query["key_scale"].unsqueeze(3) * temperature)
        rows_EQPY = rows_EQPY + (support["key_shift"] * temperature).view(E, 1, 1, -1)
        scores = rows_EQPY.unflatten(3, (N, K, -1)) @ incidence_PM.T
        scores = scores * support["key_scale"][:, None, None]
        attention = torch.softmax(scores.flatten(4), dim=4).view(scores.shape)
        return (attention @ incidence_PM).flatten(4)

    def _by_slot(self, weight: Tensor, channels: int) -> Tensor:
        return weight.unflatten(1, (self.cardinality, channels)).transpose(0, 1)


@functools.lru_cache
def tuple_rows(num_frames: int, cardinality: int) -> Tensor:
    """(P, M) float: 1 where a row, slot times T plus frame, is part of an ordered tuple."""
    tuples = list(itertools.combinations(range(num_frames), cardinality))
    rows = torch.tensor(tuples) + num_frames * torch.arange(cardinality)
    return torch.zeros(len(tuples), cardinality * num_frames).scatter_(1, rows, 1.0)


def _rows(frames: Tensor, weight: Tensor) -> Tensor:
    """Project (B, T, C) frames by (W, D, C) weights: (B, W T, D)."""
    B, T, C = frames.shape
    projected = frames.reshape(B * T, C) @ weight.reshape(-1, C).T
    return projected.to(frames).view(B, T, *weight.shape[:2]).transpose(1, 2).flatten(1, 2)


def _squares(incidence: Tensor, rows: Tensor) -> Tensor:
    """Squared lengths (B, P) of the tuples that (B, M, D) rows sum to."""
    gram_BMM = torch.bmm(rows, rows.transpose(1, 2))
    return ((incidence @ gram_BMM) * incidence).sum(dim=2)


def _prototype_squares(weights: Tensor, support: Mapping[str, Tensor]) -> Tensor:
    """Squared lengths of prototypes, summed over tuples: (E, Q, P, N, K M) weights to (E, Q, N)."""
    E, Q, _, N, X = weights.shape
    gram = _products(_left(support, "values").flatten(0, 1), support["values"].flatten(0, 1))
    # Each class by itself, all queries at once.
    each = weights.permute(0, 3, 1, 2, 4).reshape(E * N, -1, X)
    squares = (torch.bmm(each, gram.reshape(E * N, X, X)) * each).sum(dim=2)
    return squares.view(E, N, Q, -1).sum(dim=3).transpose(1, 2)


def _left(prepared: Mapping[str, Tensor], name: str) -> Tensor:
    """Rows (..., W or 1, M, C or D) whose products with the tensor of that name are wanted."""
    folded = prepared.get(f"query_{name}")
    return prepared[name].unsqueeze(-3) if folded is None else folded


def _products(queries: Tensor, others: Tensor) -> Tensor:
    """Products of rows: (E, Q, W or 1, M, C) and (E, S, T or M, C) to (E, Q, M, S, M)."""
    E, Q, L, M, _ = queries.shape
    S, R = others.shape[1:3]
    products = torch.bmm(queries.flatten(1, 3), others.flatten(1, 2).transpose(1, 2))
    return products.view(E, Q, L, M, S, R).permute(0, 1, 3, 4, 2, 5).flatten(4)
