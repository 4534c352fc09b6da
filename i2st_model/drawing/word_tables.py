"""Draws of many numbers at once: the words of `i2st_model.drawing.draws` in tables.

Philox 4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is written
out on arrays, so that thousands of sequences advance together; every word equals that of `Words`.

Shape letters: E numbers (episodes), W words of each, B blocks of four words, S items chosen.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from i2st_model.drawing.draws import Stream

Table = NDArray[np.uint64]

ROUNDS = 10
MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
KEY_STEPS = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
"""Added to the two key words after every round."""
WORDS_PER_BLOCK = 4
LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
MASK = (1 << 64) - 1


def word_table(stream: Stream, seed: int, first: int, count: int, words: int) -> Table:
    """Draw the first words of the numbers ``first`` .. ``first + count - 1``.

    Args:
        stream: what the words are for.
        seed: 0 .. 2**64 - 1.
        first: smallest number.
        count: E.
        words: W, of each number.

    Returns:
        (E, W) uint64. Row e holds the words that ``Words(stream, seed, first + e)`` gives.
    """
    blocks = -(-words // WORDS_PER_BLOCK)
    counter_EB = np.broadcast_to(np.arange(1, blocks + 1, dtype=np.uint64), (count, blocks))
    number_E1 = np.uint64(first) + np.arange(count, dtype=np.uint64)[:, None]
    zeros = np.zeros((count, blocks), np.uint64)
    state = [counter_EB, zeros, zeros, np.full_like(zeros, int(stream))]
    keys = (np.full_like(number_E1, seed), number_E1)
    for round_number in range(ROUNDS):
        added = [np.uint64(step * round_number & MASK) for step in KEY_STEPS]
        high, low = _product(state[0], MULTIPLIERS[0])
        other_high, other_low = _product(state[2], MULTIPLIERS[1])
        first_key, second_key = keys[0] + added[0], keys[1] + added[1]
        state = [other_high ^ state[1] ^ first_key, other_low, high ^ state[3] ^ second_key, low]
    return np.stack(state, axis=-1).reshape(count, -1)[:, :words]


def scaled(words: Table, counts: NDArray[np.uint64] | int) -> NDArray[np.int64]:
    """Uniform integers in 0 .. counts - 1: the high half of word x count, as `Words.below`.

    Args:
        words: (...) uint64.
        counts: broadcasts against ``words``; 1 .. 2**32 - 1.

    Returns:
        (...) int64.
    """
    factor = np.asarray(counts, dtype=np.uint64)
    low = ((words & LOW) * factor) >> HALF
    return (((words >> HALF) * factor + low) >> HALF).astype(np.int64)


def choose_table(words: Table, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose distinct integers from each row's own range, as `Words.choose`.

    The walk of Fisher and Yates keeps only what it moved, so a range of a million costs as much as
    one of ten.

    Args:
        words: (..., S) uint64. One word per item.
        counts: (...) int64. Each row chooses from 0 .. count - 1; at least S.

    Returns:
        (..., S) int64, in the order of drawing.
    """
    left = counts.astype(np.uint64)
    places: list[NDArray[np.int64]] = []
    moved: list[NDArray[np.int64]] = []
    chosen: list[NDArray[np.int64]] = []
    for step in range(words.shape[-1]):
        place = step + scaled(words[..., step], left - np.uint64(step))
        chosen.append(_at(place, places, moved))
        moved.append(_at(np.full_like(place, step), places, moved))
        places.append(place)
    return np.stack(chosen, axis=-1)


def _at(
    place: NDArray[np.int64],
    places: Sequence[NDArray[np.int64]],
    moved: Sequence[NDArray[np.int64]],
) -> NDArray[np.int64]:
    """What lies at ``place`` after the moves so far: the last that went there, or itself."""
    found = place
    for where, value in zip(places, moved, strict=True):
        found = np.where(where == place, value, found)
    return found


def _product(left: Table, right: int) -> tuple[Table, Table]:
    """High and low words of the 128-bit product, from four products of 32-bit halves."""
    right_low, right_high = np.uint64(right & 0xFFFFFFFF), np.uint64(right >> 32)
    left_low, left_high = left & LOW, left >> HALF
    low = left_low * right_low
    cross = left_high * right_low + (low >> HALF)
    other = left_low * right_high + (cross & LOW)
    high = left_high * right_high + (cross >> HALF) + (other >> HALF)
    return high, left * np.uint64(right)
