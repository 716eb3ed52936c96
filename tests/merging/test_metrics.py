"""Accuracy, its interval, and the paired test, against sums that can be checked by eye."""

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from merging.ensemble import average_probabilities
from merging.metrics import accuracy, mean_accuracy, paired_test
from tests.references import slow_mcnemar, slow_wilson


def outcomes(right, n):
    return numpy.arange(n) < right


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_accuracy_is_the_share_of_right_answers_within_its_wilson_interval(pair):
    right, n = pair
    score = accuracy(outcomes(right, n))
    assert (score.metric, score.value, score.n) == ("accuracy", right / n, n)
    assert (score.low, score.high) == pytest.approx(slow_wilson(right, n), abs=1e-9)
    assert -1e-12 <= score.low <= score.value + 1e-12
    assert score.value - 1e-12 <= score.high <= 1 + 1e-12


def test_the_interval_of_a_perfect_score_is_not_a_point():
    score = accuracy(outcomes(100, 100))
    assert score.high == pytest.approx(1.0)
    # Wilson: n / (n + z²).
    assert score.low == pytest.approx(100 / (100 + 1.959963984540054**2))


def test_more_examples_give_a_narrower_interval():
    widths = [score.high - score.low for score in (accuracy(outcomes(n * 3 // 4, n)) for n in (40, 400, 4000))]
    assert widths[0] > 2.5 * widths[1] > 2.5 * 2.5 * widths[2]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5))
def test_mean_accuracy_is_the_mean_and_counts_shared_examples_once(counts):
    scores = [accuracy(outcomes(right, 30)) for right in counts]
    mean = mean_accuracy([outcomes(right, 30) for right in counts])
    assert mean.value == pytest.approx(sum(score.value for score in scores) / len(scores))
    assert mean.n == 30
    assert min(score.low for score in scores) - 1e-12 <= mean.low <= mean.value + 1e-12
    assert mean.value - 1e-12 <= mean.high <= max(score.high for score in scores) + 1e-12


def test_mean_accuracy_of_one_model_is_its_accuracy():
    assert mean_accuracy([outcomes(7, 30)]) == accuracy(outcomes(7, 30))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 5))
def test_the_paired_test_sums_binomials(only_first, only_second, both):
    first = numpy.repeat([True, False, True], [only_first, only_second, both])
    second = numpy.repeat([False, True, True], [only_first, only_second, both])
    test = paired_test(first, second)
    assert (test.only_first, test.only_second) == (only_first, only_second)
    assert test.p_value == pytest.approx(slow_mcnemar(only_first, only_second), rel=1e-9)
    assert paired_test(second, first).p_value == pytest.approx(test.p_value)


def test_examples_that_both_get_right_or_wrong_say_nothing():
    first, second = numpy.array([True, False]), numpy.array([True, True])
    few = paired_test(first, second)
    many = paired_test(numpy.append(first, outcomes(50, 100)), numpy.append(second, outcomes(50, 100)))
    assert few == many


def test_six_to_nothing_is_significant_and_five_is_not():
    """2 · ½⁶ = .03125, 2 · ½⁵ = .0625."""
    assert paired_test(outcomes(6, 6), outcomes(0, 6)).p_value == pytest.approx(0.03125)
    assert paired_test(outcomes(5, 5), outcomes(0, 5)).p_value == pytest.approx(0.0625)


def test_equal_predictions_have_p_one():
    assert paired_test(outcomes(3, 9), outcomes(3, 9)).p_value == 1.0


def test_the_ensemble_is_the_mean_of_probabilities():
    rows = numpy.random.default_rng(0).dirichlet(numpy.ones(3), size=(4, 5))
    found = average_probabilities(list(rows))
    expected = [[sum(rows[m, n, k] for m in range(4)) / 4 for k in range(3)] for n in range(5)]
    numpy.testing.assert_allclose(found, expected)
    numpy.testing.assert_allclose(found.sum(1), 1)


def test_the_ensemble_averages_probabilities_not_votes():
    found = average_probabilities([numpy.array([[0.95, 0.05]]), numpy.array([[0.4, 0.6]]), numpy.array([[0.4, 0.6]])])
    assert found.argmax() == 0
