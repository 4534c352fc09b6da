import pytest
import torch

from pipeline.segmenters.launches import autocast, filled_up, launch


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_every_launch_has_the_same_size_and_results_are_those_of_the_rows(count):
    sizes = []

    def run(numbers, pairs):
        sizes.append((len(numbers), len(pairs)))
        return numbers * 2, pairs.sum(dim=1)

    numbers, pairs = torch.arange(count), torch.rand(count, 5)
    doubled, sums = launch(run, numbers, pairs, size=3)
    assert sizes == [(3, 3)] * -(-count // 3)
    assert doubled.tolist() == [2 * n for n in range(count)]
    torch.testing.assert_close(sums, pairs.sum(dim=1))


def test_launches_are_filled_up_with_their_last_row():
    rows = torch.tensor([[1, 2], [3, 4]])
    assert filled_up(rows, 4).tolist() == [[1, 2], [3, 4], [3, 4], [3, 4]]
    assert filled_up(rows, 2) is rows


def test_the_cpu_computes_in_float32():
    rows = torch.eye(2)
    with autocast(rows.device):
        assert (rows @ rows).dtype == torch.float32
