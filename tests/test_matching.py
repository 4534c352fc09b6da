"""Distances against written-out loops in float64, and their symmetries."""

import itertools
import math

import pytest
import torch

from i2st_model import matching

E, Q, N, T, D = 2, 3, 4, 5, 6


@pytest.fixture
def clips():
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(E, Q, T, D, generator=generator, dtype=torch.float64)
    prototypes = torch.randn(E, N, T, D, generator=generator, dtype=torch.float64)
    return query, prototypes


def cosine(a, b):
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def each_pair(query, prototypes, score):
    expected = torch.empty(E, Q, N, dtype=torch.float64)
    for e in range(E):
        for q in range(Q):
            for n in range(N):
                expected[e, q, n] = score(query[e, q], prototypes[e, n])
    return expected


def loop_bi_mhm(a, b):
    costs = [[1 - cosine(x, y) for y in b] for x in a]
    forwards = sum(min(row) for row in costs) / T
    return forwards + sum(min(column) for column in zip(*costs, strict=True)) / T


def soft_min(values, temperature):
    return -temperature * math.log(sum(math.exp(-value / temperature) for value in values))


def loop_alignment(costs, temperature):
    """OTAM's recursion on a table padded with a free first and last column."""
    rows, columns = len(costs), len(costs[0])
    padded = [[0.0, *row, 0.0] for row in costs]
    total = [[0.0] * (columns + 2) for _ in range(rows)]
    for m in range(1, columns + 2):
        total[0][m] = padded[0][m] + total[0][m - 1]
    for t in range(1, rows):
        for m in range(1, columns + 2):
            moves = [total[t - 1][m - 1], total[t][m - 1]]
            if m in (1, columns + 1):
                moves.append(total[t - 1][m])
            total[t][m] = padded[t][m] + soft_min(moves, temperature)
    return total[-1][-1]


def loop_otam(temperature):
    def score(a, b):
        costs = [[1 - cosine(x, y) for y in b] for x in a]
        turned = [list(column) for column in zip(*costs, strict=True)]
        both = loop_alignment(costs, temperature) + loop_alignment(turned, temperature)
        return both / T

    return score


def test_frame_costs_put_query_frames_before_prototype_frames(clips):
    query, prototypes = clips
    costs = matching.frame_costs(query, prototypes)
    assert costs.shape == (E, Q, N, T, T)
    expected = 1 - cosine(query[1, 2, 3], prototypes[1, 0, 4])
    assert costs[1, 2, 0, 3, 4].item() == pytest.approx(expected, abs=1e-12)


def test_frame_costs_of_many_clips_match_those_of_few():
    # Many clips divide the clips by their lengths, few divide the table of products.
    query, prototypes = torch.randn(1, 30, T, D).double(), torch.randn(1, 20, T, D).double()
    query[0, 3, 1] = 0
    together = matching.frame_costs(query, prototypes)
    for q, n in itertools.product(range(30), range(20)):
        alone = matching.frame_costs(query[:, q : q + 1], prototypes[:, n : n + 1, :])
        torch.testing.assert_close(together[:, q : q + 1, n : n + 1], alone)


def test_bi_mhm_matches_a_loop(clips):
    torch.testing.assert_close(matching.bi_mhm(*clips), each_pair(*clips, loop_bi_mhm))


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5, 2.0])
def test_otam_matches_a_loop_for_each_temperature(clips, temperature):
    expected = each_pair(*clips, loop_otam(temperature))
    torch.testing.assert_close(matching.otam(*clips, temperature=temperature), expected)


def test_alignment_cost_is_the_best_path_of_a_hand_made_table():
    # Three frames against three: a path down the diagonal costs 3, everything else costs more.
    table = torch.tensor([[1.0, 9, 9], [9, 1, 9], [9, 9, 1]], dtype=torch.float64)
    assert matching.alignment_cost(table, temperature=0.01).item() == pytest.approx(3, abs=0.05)


def test_alignment_cost_allows_a_late_start():
    # The first row has to be crossed whole unless the path waits in the free column before it.
    table = torch.tensor([[50.0, 50], [1, 1]], dtype=torch.float64)
    assert matching.alignment_cost(table, temperature=0.01).item() == pytest.approx(2, abs=0.05)


def test_alignment_cost_of_tables_of_other_widths_matches_the_loop():
    table = torch.rand(3, 7, dtype=torch.float64)
    value = matching.alignment_cost(table, temperature=0.3).item()
    assert value == pytest.approx(loop_alignment(table.tolist(), 0.3), abs=1e-12)


def test_alignment_cost_of_many_tables_is_that_of_each_alone():
    # More tables than are aligned at once, with and without a clip axis before them.
    tables = torch.rand(3, 2500, 4, 3, dtype=torch.float64)
    costs = matching.alignment_cost(tables, temperature=0.2)
    torch.testing.assert_close(
        matching.alignment_cost(tables.flatten(0, 1), temperature=0.2), costs.flatten()
    )
    for row, table in itertools.product(range(3), (0, 1, 1249, 2499)):
        expected = loop_alignment(tables[row, table].tolist(), 0.2)
        assert costs[row, table].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 2, 1, 1), (1, 1, 4, 1), (1, 1, 1, 4)])
def test_alignment_cost_has_the_gradients_of_finite_differences(shape):
    tables = torch.rand(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: matching.alignment_cost(t, temperature=0.3), tables)


def test_alignment_cost_is_finite_with_finite_gradients_when_costs_are_huge():
    table = torch.tensor([[1e4, 0.0], [0.0, 1e4]], requires_grad=True)
    cost = matching.alignment_cost(table, temperature=1e-3)
    cost.backward()
    assert torch.isfinite(cost)
    assert torch.isfinite(table.grad).all()


def test_alignment_cost_refuses_a_temperature_of_zero():
    with pytest.raises(ValueError, match="temperature=0"):
        matching.alignment_cost(torch.zeros(2, 2), temperature=0)


@pytest.mark.parametrize("distance", [matching.bi_mhm, matching.otam])
def test_sequence_distances_are_symmetric_in_the_two_clips(clips, distance):
    query, prototypes = clips
    swapped = distance(prototypes, query).transpose(1, 2)
    torch.testing.assert_close(distance(query, prototypes), swapped)


@pytest.mark.parametrize("distance", [matching.bi_mhm, matching.otam])
def test_sequence_distances_permute_with_classes_queries_and_episodes(clips, distance):
    query, prototypes = clips
    classes, queries = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    permuted = distance(query[:, queries].flip(0), prototypes[:, classes].flip(0))
    expected = distance(query, prototypes).flip(0)[:, queries][:, :, classes]
    torch.testing.assert_close(permuted, expected)


def test_bi_mhm_ignores_the_order_of_frames_and_otam_does_not(clips):
    query, prototypes = clips
    shuffled = query[:, :, torch.tensor([3, 1, 4, 0, 2])]
    expected = matching.bi_mhm(query, prototypes)
    torch.testing.assert_close(matching.bi_mhm(shuffled, prototypes), expected)
    moved = matching.otam(shuffled, prototypes) - matching.otam(query, prototypes)
    assert moved.abs().min() > 1e-4


@pytest.mark.parametrize("distance", [matching.bi_mhm, matching.otam])
def test_sequence_distances_ignore_the_length_of_vectors(clips, distance):
    query, prototypes = clips
    torch.testing.assert_close(distance(7 * query, prototypes / 3), distance(query, prototypes))


@pytest.mark.parametrize("many", [1, 40])
def test_distances_of_short_vectors_are_those_of_their_directions(many):
    query, prototypes = torch.randn(1, many, T, D).double(), torch.randn(1, many, T, D).double()
    for distance in (matching.frame_costs, matching.global_distance):
        short = distance(1e-4 * query, 1e-5 * prototypes)
        torch.testing.assert_close(short, distance(query, prototypes))


def test_bi_mhm_is_zero_for_equal_clips_and_four_for_opposite_ones():
    frames = torch.ones(1, 1, T, D, dtype=torch.float64)
    assert matching.bi_mhm(frames, frames).item() == pytest.approx(0, abs=1e-12)
    assert matching.bi_mhm(frames, -frames).item() == pytest.approx(4, abs=1e-12)


def test_global_distance_averages_tokens_matched_one_to_one():
    query = torch.randn(E, Q, 3, D, dtype=torch.float64)
    prototypes = torch.randn(E, N, 3, D, dtype=torch.float64)

    def score(a, b):
        return sum(2 * (1 - cosine(a[m], b[m])) for m in range(3)) / 3

    expected = each_pair(query, prototypes, score)
    torch.testing.assert_close(matching.global_distance(query, prototypes), expected)


def test_prototype_distance_matches_a_loop():
    query = torch.randn(E, Q, D, dtype=torch.float64)
    prototypes = torch.randn(E, N, D, dtype=torch.float64)
    expected = each_pair(query, prototypes, lambda a, b: float(((a - b) ** 2).sum()))
    torch.testing.assert_close(matching.prototype_distance(query, prototypes), expected)


def test_prototype_distance_to_itself_is_never_below_zero():
    clips = 100 + torch.randn(1, 64, 16, generator=torch.Generator().manual_seed(0))
    distances = matching.prototype_distance(clips, clips)
    assert distances.min() == 0


def test_frame_costs_of_a_zero_frame_are_one_with_finite_gradients():
    query = torch.zeros(1, 1, 1, D, requires_grad=True)
    costs = matching.frame_costs(query, torch.ones(1, 1, 1, D))
    costs.sum().backward()
    assert costs.item() == 1
    assert torch.isfinite(query.grad).all()


def test_frame_costs_refuse_clips_of_different_length():
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 6\).*\(1, 1, 4, 6\)"):
        matching.frame_costs(torch.zeros(1, 1, 8, D), torch.zeros(1, 1, 4, D))


def test_matching_in_single_precision_agrees_with_double():
    query, prototypes = torch.randn(4, 5, 8, 32), torch.randn(4, 5, 8, 32)
    for distance in (matching.bi_mhm, matching.otam):
        exact = distance(query.double(), prototypes.double())
        torch.testing.assert_close(
            distance(query, prototypes).double(), exact, atol=1e-5, rtol=1e-5
        )


def test_distances_add_epsilon_to_the_denominator_of_every_cosine():
    query, prototypes = torch.randn(1, 2, 3, 4).double(), torch.randn(1, 2, 3, 4).double()
    costs = torch.empty(1, 2, 2, 3, 3).double()
    for q, n, i, j in itertools.product(range(2), range(2), range(3), range(3)):
        a, b = query[0, q, i], prototypes[0, n, j]
        costs[0, q, n, i, j] = 1 - (a @ b) / (a.norm() * b.norm() + 0.3)
    torch.testing.assert_close(matching.frame_costs(query, prototypes, epsilon=0.3), costs)
    nearest = costs.amin(-1).mean(-1) + costs.amin(-2).mean(-1)
    torch.testing.assert_close(matching.bi_mhm(query, prototypes, epsilon=0.3), nearest)
    one_to_one = 2 * costs.diagonal(dim1=-2, dim2=-1).mean(-1)
    torch.testing.assert_close(matching.global_distance(query, prototypes, epsilon=0.3), one_to_one)
    both = [matching.alignment_cost(c, temperature=0.5) for c in (costs, costs.mT)]
    found = matching.otam(query, prototypes, epsilon=0.3)
    torch.testing.assert_close(found, sum(both) / 3)
