"""Assignment against all permutations."""

from itertools import permutations

import pytest
import torch

from i2st_model.assignment import LARGEST, assigned_cost, best_assignment


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6])
def test_assigned_cost_is_the_least_over_all_permutations(size):
    generator = torch.Generator().manual_seed(size)
    costs = torch.randn(3, 4, size, size, generator=generator, dtype=torch.float64)
    every = [
        sum(costs[..., row, column] for row, column in enumerate(order)) / size
        for order in permutations(range(size))
    ]
    torch.testing.assert_close(assigned_cost(costs), torch.stack(every).amin(dim=0))


def test_best_assignment_finds_a_hidden_permutation_of_the_largest_size():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.stack([torch.randperm(LARGEST, generator=generator) for _ in range(50)])
    costs = torch.rand(50, LARGEST, LARGEST, generator=generator)
    costs.scatter_(2, hidden.unsqueeze(2), -1.0)
    assert torch.equal(best_assignment(costs), hidden)


def test_gradient_of_the_assigned_cost_is_that_of_the_chosen_costs():
    costs = torch.tensor([[1.0, 0.0, 9.0], [0.0, 5.0, 9.0], [9.0, 9.0, 2.0]], requires_grad=True)
    found = assigned_cost(costs)
    found.backward()
    assert found.item() == pytest.approx(2 / 3)
    expected = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]) / 3
    assert torch.equal(costs.grad, expected)


@pytest.mark.parametrize("shape", [(2, 3, 4), (11, 11)])
def test_assignment_refuses_tables_that_it_cannot_hold(shape):
    with pytest.raises(ValueError, match="side 1 to 10"):
        assigned_cost(torch.zeros(shape))
