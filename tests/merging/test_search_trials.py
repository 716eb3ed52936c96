"""What a weighting gives, and what is kept of it."""

import numpy
import pytest

from merging.errors import RecipeError
from merging.metrics import Score, accuracy
from merging.search import Trial, Trials, best_of, mean_over_tasks


def correct(*counts: int, of: int = 40) -> numpy.ndarray:
    """Answers of which the first are right."""
    return numpy.arange(of) < counts[0]


def trial(rule: str = "fisher", weights=(0.5, 0.5), **values: float) -> Trial:
    scores = {task: Score("accuracy", value, 0.0, 1.0, 10) for task, value in values.items()}
    mean = sum(values.values()) / len(values)
    return Trial(rule, weights, scores, Score("accuracy", mean, 0.0, 1.0, 10))


@pytest.mark.parametrize("right", [0, 1, 17, 39, 40])
def test_the_mean_over_one_task_is_the_task(right):
    one = correct(right)
    found, own = mean_over_tasks([[one]]), accuracy(one)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((own.value, own.low, own.high, own.n))


@pytest.mark.parametrize("right", [0, 17, 40])
def test_a_task_counted_twice_on_the_same_rows_is_no_surer(right):
    one, twice = mean_over_tasks([[correct(right)]]), mean_over_tasks([[correct(right), correct(right)]])
    assert (twice.low, twice.high) == pytest.approx((one.low, one.high))


def test_equal_tasks_on_different_rows_are_as_sure_as_one_task_of_all_rows():
    apart = mean_over_tasks([[correct(17)], [correct(17)]])
    whole = accuracy(numpy.concatenate([correct(17), correct(17)]))
    assert (apart.value, apart.low, apart.high, apart.n) == pytest.approx((whole.value, whole.low, whole.high, 80))


def test_tasks_that_take_turns_count_every_row_once_for_each_task_at_most():
    first = correct(20)
    found = mean_over_tasks([[first, ~first]])
    assert found.value == 0.5
    assert found.n == 80


def test_the_interval_covers_the_mean_of_correlated_tasks_about_as_often_as_it_says():
    generator = numpy.random.default_rng(0)
    truth, inside = 0.8, 0
    for _ in range(400):
        luck = generator.random((3, 200))
        luck[1] = numpy.where(generator.random(200) < 0.7, luck[0], luck[1])
        answers = luck < truth
        score = mean_over_tasks([[answers[0], answers[1]], [answers[2]]])
        inside += score.low <= truth <= score.high
    assert 0.92 <= inside / 400 <= 0.99


def test_the_best_is_the_highest_of_the_objective_then_of_the_mean_then_the_first():
    first, second, third = trial(a=0.5, b=0.9), trial(a=0.6, b=0.7), trial(a=0.6, b=0.8)
    assert best_of([first, second, third], "mean") is first  # 0.7, as the third
    assert best_of([first, second, third], "worst") is third
    assert best_of([second, first], "task:b") is first
    assert best_of([second, third], "task:a") is third
    assert best_of([], "mean") is None


def test_a_task_may_bear_an_objectives_name():
    assert trial(mean=0.2, worst=0.8).score("task:worst").value == 0.8
    assert trial(mean=0.2, worst=0.8).score("worst").value == 0.2


@pytest.mark.parametrize("objective", ["task:c", "best", "", "a"])
def test_an_unknown_objective_is_told(objective):
    with pytest.raises(RecipeError, match=r"expected one of .*task:a"):
        trial(a=0.5, b=0.9).score(objective)


def test_trials_are_kept_by_rule_and_weights_in_their_order_and_the_oldest_go_first():
    kept = Trials(limit=3)
    mine = [trial(weights=(index / 10, 1 - index / 10), a=0.5) for index in range(4)]
    for one in mine[:2]:
        kept.put("fisher", one.weights, one)
    kept.put("isotropic", mine[0].weights, "cannot be merged")
    assert kept.of("fisher") == mine[:2]
    assert kept.of("isotropic") == []
    assert kept.get("isotropic", mine[0].weights) == "cannot be merged"
    assert kept.get("fisher", (0.1 + 1e-9, 0.9)) is mine[1]
    assert kept.get("fisher", (0.11, 0.89)) is None
    kept.put("fisher", mine[2].weights, mine[2])
    assert kept.of("fisher") == mine[1:3]
    assert len(kept) == 3
