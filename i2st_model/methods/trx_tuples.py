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
            ``query_keys``, ``query_values`` (B, W or 1, M, C or D) and ``keys``, ``values``
            (B, T or M, C or D), whose products are those of rows; ``key_scale`` (B, P), one over
            the deviation of each key; ``key_shift`` (B, M) and ``key_offset`` (B, P), what the
            biases of LayerNorm and projection add; ``square`` (B,), summed squares of the values.
        """
        weight_WDC, bias_D = self._centred_keys(frames.shape[2])
        values_WDC = self._by_slot(self.values.weight, frames.shape[2])
        keys_BMD, values_BMD = _rows(frames, weight_WDC), _rows(frames, values_WDC)
        # Half precision is for the projections alone: variances are sums of large products.
        with torch.autocast(frames.device.type, enabled=False):
            parts = self._from_rows(keys_BMD, values_BMD, bias_D)
            if self.training or frames.shape[2] >= bias_D.shape[0]:
                return parts
            for name, weight in (("query_keys", weight_WDC), ("query_values", values_WDC)):
                parts[name] = torch.einsum("bmd,wdc->bwmc", parts[name].squeeze(1), weight)
            return parts | {"keys": frames, "values": frames}

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
        products = _products(query["query_values"], support["values"].flatten(1, 2))
        cross_EQPNX = torch.matmul(incidence_PM, products.flatten(3)).view(weights_EQPNX.shape)
        cross_EQN = (weights_EQPNX * cross_EQPNX).sum(dim=(2, 4))
        squares_EQN = _prototype_squares(weights_EQPNX, support)
        return (query["square"].unsqueeze(2) - 2 * cross_EQN + squares_EQN) / P

    def _from_rows(self, keys: Tensor, values: Tensor, bias: Tensor) -> dict[str, Tensor]:
        """What `prepare` returns, from projected rows (B, M, D) and the bias of keys."""
        M = keys.shape[1]
        T = M // self.cardinality
        incidence_PM = tuple_rows(T, self.cardinality).to(keys)
        # Every tuple has one row of the first slot: there the bias is added once.
        whole_BMD = torch.cat([keys[:, :T] + bias, keys[:, T:]], dim=1)
        query_BMD = whole_BMD * self.norm.weight.square()
        variance_BP = _squares(incidence_PM, whole_BMD) / bias.shape[0]
        return {
            "query_keys": query_BMD.unsqueeze(1),
            "query_values": values.unsqueeze(1),
            "keys": keys,
            "values": values,
            "key_scale": (variance_BP + self.norm.eps).rsqrt(),
            "key_shift": whole_BMD @ (self.norm.weight * self.norm.bias),
            "key_offset": (query_BMD @ bias) @ incidence_PM.T,
            "square": _squares(incidence_PM, values).sum(dim=1),
        }

    def _row_weights(
        self, support: Mapping[str, Tensor], query: Mapping[str, Tensor], incidence_PM: Tensor
    ) -> Tensor:
        """Attention of each query tuple to a class, summed onto rows: (E, Q, P, N, K M)."""
        E, N, K = support["square"].shape
        temperature = 1 / math.sqrt(self.keys.out_features)
        products = _products(query["query_keys"], support["keys"].flatten(1, 2))
        rows_EQPY = torch.matmul(incidence_PM, products.flatten(3))  # Y = N K M
        # A support tuple is a sum of W rows: what belongs to the tuple is shared among them.
        rows_EQPY = rows_EQPY + query["key_offset"].unsqueeze(3) / self.cardinality
        rows_EQPY = rows_EQPY * (query["key_scale"].unsqueeze(3) * temperature)
        rows_EQPY = rows_EQPY + (support["key_shift"] * temperature).view(E, 1, 1, -1)
        scores = rows_EQPY.unflatten(3, (N, K, -1)) @ incidence_PM.T
        scores = scores * support["key_scale"][:, None, None]
        attention = torch.softmax(scores.flatten(4), dim=4).view(scores.shape)
        return (attention @ incidence_PM).flatten(4)

    def _centred_keys(self, channels: int) -> tuple[Tensor, Tensor]:
        weight_WDC = self._by_slot(self.keys.weight, channels)
        bias_D = self.keys.bias
        return weight_WDC - weight_WDC.mean(dim=1, keepdim=True), bias_D - bias_D.mean()

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
    gram = _products(support["query_values"].flatten(0, 1), support["values"].flatten(0, 1))
    # Each class by itself, all queries at once.
    each = weights.permute(0, 3, 1, 2, 4).reshape(E * N, -1, X)
    squares = (torch.bmm(each, gram.reshape(E * N, X, X)) * each).sum(dim=2)
    return squares.view(E, N, Q, -1).sum(dim=3).transpose(1, 2)


def _products(queries: Tensor, others: Tensor) -> Tensor:
    """Products of rows: (E, Q, W or 1, M, C) and (E, S, T or M, C) to (E, Q, M, S, M)."""
    E, Q, L, M, _ = queries.shape
    S, R = others.shape[1:3]
    products = torch.bmm(queries.flatten(1, 3), others.flatten(1, 2).transpose(1, 2))
    return products.view(E, Q, L, M, S, R).permute(0, 1, 3, 4, 2, 5).flatten(4)
