"""The merges of a visit, and two of them compared."""

from dataclasses import replace

import numpy
import pytest

from components import visits as module
from components.merge_history import compared, listed, remembered
from components.visits import VISITS, Visits
from merging.pipeline import evaluate


@pytest.fixture
def visits():
    return Visits()


@pytest.fixture(scope="module")
def other_result(four_result):
    return evaluate(four_result.prepared, four_result.recipe.with_weights([1.0, 0.0, 0.0, 0.0]))


def test_merges_are_kept_in_order_and_numbered(visits, four_result, other_result):
    visit = visits.add(None, four_result)
    assert visits.add(visit, other_result) == visit
    assert [merge.name for merge in visits.of(visit)] == ["merge 1", "merge 2"]
    assert [merge.recipe for merge in visits.of(visit)] == [four_result.recipe, other_result.recipe]
    assert visits.of(visit)[0].means["fisher"] == four_result.mean("fisher")


def test_names_are_the_visitors_and_stay_apart(visits, four_result):
    visit = visits.add("", four_result, "best yet")
    visits.add(visit, four_result, " best yet ")
    visits.add(visit, four_result, "x" * 1000)
    names = [merge.name for merge in visits.of(visit)]
    assert names[:2] == ["best yet", "best yet (2)"]
    assert len(names[2]) == module.LONGEST_NAME


def test_visits_do_not_see_each_other(visits, four_result):
    first, second = visits.add(None, four_result), visits.add(None, four_result)
    assert first != second
    assert len(visits.of(first)) == len(visits.of(second)) == 1
    assert visits.of("guessed") == visits.of(None) == []
    assert visits.add("guessed", four_result) != "guessed"


def test_what_is_kept_is_bounded(visits, four_result, monkeypatch):
    monkeypatch.setattr(module, "KEPT_VISITS", 3)
    monkeypatch.setattr(module, "KEPT_MERGES", 2)
    several = [visits.add(None, four_result) for _ in range(4)]
    assert [bool(visits.of(visit)) for visit in several] == [False, True, True, True]
    for _ in range(3):
        visits.add(several[-1], four_result)
    assert [merge.name for merge in visits.of(several[-1])] == ["merge 3", "merge 4"]


def test_two_merges_are_compared_by_the_paired_test_on_the_same_examples(four_result, other_result):
    visit = VISITS.add(None, four_result, "equal")
    VISITS.add(visit, other_result, "parity only")
    sentence, figure, numbers = compared(visit, "equal", "parity only")
    for task, score in four_result.scores["fisher"].items():
        other = other_result.scores["fisher"][task]
        assert repr(100 * score.value) in numbers
        assert repr(100 * (other.value - score.value)) in numbers
        from merging.metrics import paired_test

        test = paired_test(
            four_result.predictions["fisher"][task].correct, other_result.predictions["fisher"][task].correct
        )
        assert repr(float(test.p_value)) in numbers
    assert [bars.name for bars in figure.data] == ["equal", "parity only"]
    assert "parity only" in sentence


def test_merges_on_other_splits_are_not_compared(four_result):
    recipe = replace(four_result.recipe, evaluation=replace(four_result.recipe.evaluation, split="validation"))
    visit = VISITS.add(None, four_result, "test")
    VISITS.add(visit, evaluate(four_result.prepared, recipe), "validation")
    told, figure, _ = compared(visit, "test", "validation")
    assert figure is None
    assert "no common task and split" in told


@pytest.mark.parametrize("names", [("a", "a"), ("a", None), (None, None), ("<b>", "a"), ("a", "gone")])
def test_fewer_than_two_merges_ask_for_two(four_result, names):
    visit = VISITS.add(None, four_result, "a")
    assert "Choose two merges" in compared(visit, *names)[0]


def test_an_empty_visit_says_what_to_press():
    assert "Merge and evaluate" in listed("")[0]


def test_names_are_shown_as_text(four_result):
    visit = VISITS.add(None, four_result, "<img src=x>")
    shown = "".join(str(part) for part in listed(visit)[:3])
    assert "<img" not in shown
    assert "&lt;img src=x&gt;" in shown


def test_nothing_is_kept_where_nothing_is_merged():
    from components.form import ROWS

    values = [[], "keep", [], "auto", 256, 0, 0.0, "trace", "mean", "auto", "test", "", *[0.5] * ROWS]
    assert all(isinstance(update, dict) and "value" not in update for update in remembered("", "", *values))


def test_a_kept_merge_holds_right_answers_as_bits_not_models(four_result):
    visit = VISITS.add(None, four_result)
    for own in VISITS.of(visit)[0].correct.values():
        assert own.dtype == numpy.bool_
