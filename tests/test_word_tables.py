import numpy as np
import pytest

from i2st_model.drawing.class_videos import group_videos
from i2st_model.drawing.draws import Stream, Words
from i2st_model.drawing.word_tables import choose_table, scaled, word_table
from i2st_model.episodes import EpisodeSampler

LARGEST = 2**64 - 1


@pytest.mark.parametrize("seed", [0, 3, 12345678901234567890, LARGEST])
@pytest.mark.parametrize("first", [0, 5, LARGEST - 7])
def test_word_table_equals_numpys_philox_word_by_word(seed, first):
    # Every word of numpy's own generator, for two streams and past several blocks of four.
    for stream in (Stream.EPISODE, Stream.VIEW):
        rows = word_table(stream, seed, first, 8, 71).tolist()
        for offset, row in enumerate(rows):
            key = np.array([seed, first + offset], dtype=np.uint64)
            counter = np.array([0, 0, 0, int(stream)], dtype=np.uint64)
            assert row == np.random.Philox(key=key, counter=counter).random_raw(71).tolist()


def test_scaled_words_equal_products_of_whole_numbers():
    # The last but one carries from its low half into the whole number.
    carries = 0x55555555FFFFFFFF
    words = np.array([0, 1, 2**32 - 1, 2**32, 2**63 + 12345, carries, LARGEST], dtype=np.uint64)
    for count in (1, 2, 3, 7, 1292, 2**31 + 11, 2**32 - 1):
        assert scaled(words, count).tolist() == [(int(word) * count) >> 64 for word in words]


def test_chosen_tables_equal_choices_one_by_one():
    counts = np.random.default_rng(0).integers(9, 30, size=(40, 3))
    words = word_table(Stream.EPISODE, 11, 0, 40, 27)
    chosen = choose_table(words.reshape(40, 3, 9), counts)
    for number in range(40):
        one_by_one = Words(Stream.EPISODE, 11, number)
        expected = [one_by_one.choose(int(count), 9) for count in counts[number]]
        assert chosen[number].tolist() == expected


@pytest.mark.parametrize(("way", "shot", "queries"), [(2, 1, 1), (5, 5, 1), (6, 2, 7)])
def test_batches_of_episodes_equal_single_draws(way, shot, queries):
    index = np.random.default_rng(1).permutation(np.repeat(np.arange(6), [9, 10, 12, 15, 40, 333]))
    videos = group_videos(index, [""] * len(index), range(6), list("abcdef"))
    sampler = EpisodeSampler(videos, way=way, shot=shot, queries=queries, seed=LARGEST)
    batch = sampler.batch(100, 50)
    for place in range(50):
        one = sampler.episode(100 + place)
        np.testing.assert_array_equal(batch.classes[place], one.classes)
        np.testing.assert_array_equal(batch.support[place], one.support)
        np.testing.assert_array_equal(batch.query[place], one.query)
