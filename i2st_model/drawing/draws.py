"""Random draws that are a function of (seed, number) alone, on every machine and numpy version.

Each (stream, seed, number) has its own Philox 4x64 sequence: seed and number form the 128-bit key,
the stream sets the highest counter word, so sequences never meet and nothing has to be advanced or
stored. Only the raw 64-bit words are taken from numpy, because their values are frozen; those of
``Generator`` methods may change between numpy versions (NEP 19).
"""

from collections.abc import Iterator
from enum import IntEnum

import numpy as np

WORDS_AT_A_TIME = 64
WORD = 1 << 64


class Stream(IntEnum):
    """What the words are for; a new use takes a new value, so that no other use changes."""

    EPISODE = 0
    POOL = 1
    AUGMENT = 2
    MASK_SHUFFLE = 3
    TOKEN_SAMPLE = 4
    TORCH = 5
    VIEW = 6
    CROP = 16
    JITTER = 17


class Words:
    """The words of one (stream, seed, number)."""

    def __init__(self, stream: Stream, seed: int, number: int) -> None:
        if not (0 <= seed < WORD and 0 <= number < WORD):
            raise ValueError(f"seed={seed} and number={number} must lie in 0 .. 2**64 - 1")
        self._philox = np.random.Philox(key=seed | (number << 64), counter=int(stream) << 192)
        self._buffer: list[int] = []

    def word(self) -> int:
        """Next 64-bit word."""
        if not self._buffer:
            self._buffer = self._philox.random_raw(WORDS_AT_A_TIME)[::-1].tolist()
        return self._buffer.pop()

    def below(self, count: int) -> int:
        """Uniform integer in 0 .. count - 1: the high half of word x count."""
        return (self.word() * count) >> 64

    def permutation(self, count: int) -> Iterator[int]:
        """0 .. count - 1 in uniform random order, lazily: k items cost k steps."""
        moved: dict[int, int] = {}
        for position in range(count):
            other = position + self.below(count - position)
            yield moved.get(other, other)
            moved[other] = moved.get(position, position)

    def choose(self, count: int, size: int) -> list[int]:
        """``size`` distinct integers of 0 .. count - 1, in random order."""
        order = self.permutation(count)
        return [next(order) for _ in range(size)]
