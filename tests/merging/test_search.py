"""Weights on the simplex."""

import math

import pytest

from merging import Cancelled, prepare, search_weights
from merging.pipeline import evaluate
from merging.search import candidate_weights
from tests import cases


@pytest.mark.parametrize("count", [2, 3, 5])
def test_candidates_lie_on_the_simplex_and_begin_with_equal_weights(count):
    candidates = candidate_weights(count)
    assert candidates[0] == (1 / count,) * count
    assert len(candidates) == (52 if count == 2 else 51)
    for weights in candidates:
        assert len(weights) == count
        assert min(weights) >= 0
        assert math.isclose(sum(weights), 1.0, rel_tol=1e-12)


def test_two_models_are_searched_on_the_papers_grid():
    grid = candidate_weights(2)[1:]
    assert grid[0] == (0.0, 1.0)
    assert grid[-1] == (1.0, 0.0)
    assert all(math.isclose(weights[0], index / 50) for index, weights in enumerate(grid))


def test_more_models_are_searched_by_seed():
    assert candidate_weights(3, seed=1) == candidate_weights(3, seed=1)
    assert candidate_weights(3, seed=1)[1:] != candidate_weights(3, seed=2)[1:]


def test_the_best_weights_are_the_best_of_those_tried_and_their_value_is_the_merges():
    recipe = cases.two_tasks()
    prepared = prepare(recipe)
    progress = []
    found = search_weights(prepared, recipe, on_progress=lambda fraction, text: progress.append(fraction))
    assert found.split == "validation"
    assert len(found.tried) == len(set(progress)) == 52
    assert progress == sorted(progress)
    assert found.value == max(value for _, value in found.tried)
    assert (found.weights, found.value) in found.tried
    from dataclasses import replace

    on_validation = replace(recipe, evaluation=replace(recipe.evaluation, split="validation"))
    result = evaluate(prepared, on_validation.with_weights(found.weights))
    assert result.mean("fisher") == pytest.approx(found.value)


def test_the_ends_of_the_grid_are_the_single_models():
    recipe = cases.two_tasks()
    prepared = prepare(recipe)
    tried = dict(search_weights(prepared, recipe, split="test").tried)
    for weights in ((0.0, 1.0), (1.0, 0.0)):
        result = evaluate(prepared, recipe.with_weights(weights))
        assert tried[weights] == pytest.approx(result.mean("fisher"))


def test_a_search_can_be_stopped():
    recipe = cases.two_tasks()

    def stop(fraction, text):
        raise Cancelled

    with pytest.raises(Cancelled):
        search_weights(prepare(recipe), recipe, on_progress=stop)
