"""Places on the simplex of weights, and where a search goes next."""

import math

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merging.search import first_points, lattice, map_points, planned_points, rounded, trial_count
from merging.search.points import draws
from merging.search.refinement import Proposals


@pytest.mark.parametrize(("count", "steps"), [(2, 50), (3, 10), (4, 5), (5, 1)])
def test_a_lattice_holds_every_multiple_once(count, steps):
    points = lattice(count, steps)
    assert len(set(points)) == len(points) == math.comb(steps + count - 1, count - 1)
    for weights in points:
        assert math.isclose(sum(weights), 1.0)
        assert all(math.isclose(weight * steps, round(weight * steps), abs_tol=1e-9) for weight in weights)


def test_pictures_of_two_models_are_drawn_on_the_papers_grid_and_of_three_on_a_lattice():
    assert map_points(2) == [(index / 50, (50 - index) / 50) for index in range(51)]
    assert len(map_points(3)) == 66
    assert map_points(4) == []


@pytest.mark.parametrize("count", [2, 3, 4, 8])
def test_a_search_begins_at_the_centre_then_the_corners_then_the_middles_of_edges(count):
    points = first_points(count, 1000)
    assert points[0] == (1 / count,) * count
    assert {weights.index(1.0) for weights in points[1 : count + 1]} == set(range(count))
    edges = points[count + 1 : count + 1 + math.comb(count, 2)] if count > 2 else []
    assert all(sorted(weights)[-2:] == [0.5, 0.5] for weights in edges)
    assert len(set(points)) == len(points) == 2**count - 1
    assert all(math.isclose(sum(weights), 1.0) for weights in points)


@pytest.mark.parametrize(
    ("count", "budget", "planned"), [(2, 10, 51), (3, 10, 66), (4, 100, 50), (8, 10, 5), (8, 1, 1)]
)
def test_half_of_a_search_is_planned_and_a_picture_is_never_cut(count, budget, planned):
    assert len(planned_points(count, budget)) == planned
    assert trial_count(count, budget) >= max(budget, planned)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=8).filter(lambda weights: sum(weights) > 1e-6))
def test_rounded_weights_are_tenths_of_per_mille_of_sum_one_next_to_the_exact_ones(weights):
    units = [weight * 10_000 for weight in rounded(weights)]
    assert all(math.isclose(unit, round(unit), abs_tol=1e-6) for unit in units)
    assert round(sum(units)) == 10_000
    total = math.fsum(weights)
    assert all(abs(unit / 10_000 - weight / total) <= 1e-4 for unit, weight in zip(units, weights, strict=True))


def test_draws_are_uniform_on_the_simplex_and_given_by_the_seed():
    found = numpy.array(draws(3, 4000, seed=1))
    # Dirichlet(1, 1, 1): mean 1/3, variance 1/18 in every coordinate; five standard errors of each.
    assert numpy.allclose(found.mean(0), 1 / 3, atol=5 * math.sqrt(1 / 18 / 4000))
    assert numpy.allclose(found.var(0), 1 / 18, atol=0.006)
    assert draws(3, 5, seed=1) == draws(3, 5, seed=1) != draws(3, 5, seed=2)


def _sought(weights, target=(0.5, 0.3, 0.15, 0.05)):
    return -math.dist(weights, target)


def _searched(number: int, seed: int) -> list[tuple[float, ...]]:
    proposals, tried = Proposals(4, seed=seed), []
    for weights in first_points(4, 11):
        proposals.tell(weights, _sought(weights))
    for _ in range(number):
        tried.append(proposals.next())
        proposals.tell(tried[-1], _sought(tried[-1]))
    return tried


@pytest.mark.parametrize("seed", range(3))
def test_refinement_comes_closer_than_as_many_even_draws(seed):
    tried = _searched(80, seed)
    assert all(math.isclose(sum(weights), 1.0) and min(weights) >= 0 for weights in tried)
    assert max(map(_sought, tried)) > max(map(_sought, draws(4, 80, seed=seed)))
    assert max(map(_sought, tried)) > -0.1


def test_the_same_history_and_seed_propose_the_same():
    assert _searched(12, seed=5) == _searched(12, seed=5) != _searched(12, seed=6)


def test_without_a_history_the_whole_simplex_is_proposed():
    proposals = Proposals(3, seed=0)
    found = numpy.array([proposals.next() for _ in range(200)])
    assert numpy.allclose(found.mean(0), 1 / 3, atol=0.09)
    assert found.max() > 0.85
    assert found.min() < 0.02
