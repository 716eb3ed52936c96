"""The lessons: their numbers are merging's own, every question has an answer, and a reader may leave and come back."""

import json
import math
import threading

import pytest

from components import learn_lessons, learn_numbers
from components.learn_lesson_figures import lesson_picture
from components.learn_lessons import Visit, answered, chosen, redrawn, reopened, shown_step, went_back, went_on
from components.learn_numbers import (
    begin_lesson,
    check,
    compared,
    facts,
    final_scores,
    last_job,
    numbers_of,
    scores_on_test,
)
from components.lessons import DOMAIN, ENSEMBLING, INTERMEDIATE, LESSONS, ROBUST
from merging.diagnostics.uses import mean_of
from merging.errors import PoolError

WAIT_S = 300
MIDDLE = {"choice": None, "share": 0.5}


@pytest.fixture(scope="module")
def numbers():
    """Every lesson, computed as the page does it."""
    jobs = [begin_lesson(key) for key in LESSONS]
    for job in jobs:
        assert job.ended.wait(WAIT_S)
        assert job.state == "done", job.message
    return {key: numbers_of(key) for key in LESSONS}


def _visit(lesson: str, step: int) -> str:
    return Visit(lesson, {**dict.fromkeys(LESSONS, 0), lesson: step}).stored()


@pytest.mark.parametrize("key", LESSONS)
def test_a_lesson_ends_with_one_question_that_something_answers(key):
    steps = LESSONS[key].steps
    assert [step.asks for step in steps] == [False] * (len(steps) - 1) + [True]
    assert steps[-1].choices or steps[-1].slider
    assert not steps[0].picture, "the first step needs no numbers"
    assert all(step.picture for step in steps[1:])
    words = sum(len(text.split()) for step in steps for text in step.text)
    assert words <= 330, "two minutes of reading"


@pytest.mark.parametrize("key", LESSONS)
def test_every_step_has_its_numbers_filled_in_and_its_picture(numbers, key):
    lesson = LESSONS[key]
    for place, step in enumerate(lesson.steps):
        shown = shown_step(Visit.of(_visit(key, place)), 2, 0.5)
        assert len(shown) == 17
        assert "{" not in shown[2]
        assert step.title in shown[2]
        assert (shown[4] is not None) == bool(step.picture)


def test_the_texts_hold_mergings_own_numbers(numbers):
    seeds = numbers[ENSEMBLING]
    words = facts(LESSONS[ENSEMBLING], seeds)
    assert words["fisher"] == f"{100 * seeds.answers['fisher'][-1].mean():.1f}"
    assert words["n"] == "347"
    robust = facts(LESSONS[ROBUST], numbers[ROBUST])
    assert robust["narrow_home"] == f"{100 * numbers[ROBUST].singles['validation'][1]['digit'].mean():.1f}"
    few = facts(LESSONS[INTERMEDIATE], numbers[INTERMEDIATE])
    assert few["alone"] == f"{100 * numbers[INTERMEDIATE].singles['validation'][0]['few'].mean():.1f}"


def test_ensembling_is_right_for_what_is_cheap_and_within_half_a_point(numbers):
    lesson, seeds = LESSONS[ENSEMBLING], numbers[ENSEMBLING]
    found = final_scores(seeds)
    assert found["ensemble"] == pytest.approx(seeds.answers["ensemble"][-1].mean())
    any_single_run = any(max(found.values()) - value <= 0.005 for name, value in found.items() if name != "ensemble")
    for choice, value in found.items():
        verdict = check(lesson, seeds, choice=choice, share=0)
        near = max(found.values()) - value <= 0.005
        assert verdict.right == (near and (choice != "ensemble" or not any_single_run))
        assert f"{100 * value:.1f}" in verdict.text


def test_the_bargain_is_kept_by_the_curve_itself(numbers):
    lesson, curves = LESSONS[ROBUST], numbers[ROBUST]
    home, away = (curves.curve("fisher", "validation", tasks) for tasks in (lesson.home, lesson.target))
    least = max(mean_of(own, lesson.home) for own in curves.singles["validation"]) - 0.01
    best = max(value for value, clean in zip(away, home, strict=True) if clean >= least - 1e-9)
    rights = [check(lesson, curves, choice=None, share=share).right for share in curves.shares]
    expected = [clean >= least - 1e-9 and best - value <= 0.01 + 1e-9 for clean, value in zip(home, away, strict=True)]
    assert rights == expected
    assert any(rights)
    assert not all(rights)


def test_the_donors_share_is_right_within_a_point_of_the_best(numbers):
    lesson, curves = LESSONS[INTERMEDIATE], numbers[INTERMEDIATE]
    curve = curves.curve("fisher", "validation", lesson.target)
    rights = [check(lesson, curves, choice=None, share=share).right for share in curves.shares]
    assert rights == [max(curve) - value <= 0.01 + 1e-9 for value in curve]
    assert any(rights)
    assert not all(rights)


def test_the_domains_winner_is_told_by_scores_on_test_at_shares_that_validation_chose(numbers):
    lesson, curves = LESSONS[DOMAIN], numbers[DOMAIN]
    found = scores_on_test(lesson, curves)
    for rule in ("isotropic", "fisher"):
        place = curves.chosen(rule, lesson.target)
        assert found[rule] == pytest.approx(curves.merges[rule, "test"][place]["rotated-remainder"].mean())
    ranked = sorted(found, key=found.get, reverse=True)
    winner = ranked[0] if found[ranked[0]] - found[ranked[1]] > 0.005 else "tie"
    for _, choice in lesson.steps[-1].choices:
        assert check(lesson, curves, choice=choice, share=0.5).right == (choice == winner)


@pytest.mark.parametrize("key", [ENSEMBLING, DOMAIN])
@pytest.mark.parametrize("choice", [None, "", "nobody", "<b>"])
def test_no_answer_is_neither_right_nor_wrong(numbers, key, choice):
    verdict = check(LESSONS[key], numbers[key], choice=choice, share=0.5)
    assert verdict.right is None
    assert "Choose" in verdict.text
    assert "Not quite" not in answered(_visit(key, 3), 2, 0.5, choice)


def test_a_comparison_says_who_wins_and_whether_chance_would_do_it():
    all_right, none_right, one_wrong = [True] * 20, [False] * 20, [True] * 19 + [False]
    assert "right equally often" in compared("fisher", all_right, "isotropic", all_right)
    assert compared("fisher", all_right, "isotropic", none_right).startswith("The Fisher merge wins by 100.0 points")
    lost = compared("fisher", one_wrong, "isotropic", all_right)
    assert lost.startswith("The Fisher merge loses by 5.0 points against the isotropic average: 0 images")
    assert "call it a tie" in lost
    assert "fewer than 5 of 100" in compared("fisher", none_right, "isotropic", all_right)


@pytest.mark.parametrize("key", LESSONS)
def test_the_picture_follows_what_is_moved(numbers, key):
    lesson = LESSONS[key]
    step = next(step for step in lesson.steps if step.slider)
    one, other = (
        lesson_picture(step.picture, lesson, numbers[key], share=share, count=count)
        for share, count in ((0.2, 1), (0.8, 4))
    )
    assert one.sentence != other.sentence
    assert one.figure != other.figure
    assert one.rows == other.rows, "the numbers are those of the whole curve"


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -7, 1e9, "much"])
def test_a_slider_that_says_nonsense_moves_to_an_end(numbers, bad):
    for key in LESSONS:
        place = next(index for index, step in enumerate(LESSONS[key].steps) if step.slider)
        assert redrawn(_visit(key, place), bad, bad)[1] is not None
        assert "role=" in answered(_visit(key, 3), bad, bad, None)


def test_a_reader_goes_on_and_back_and_finds_each_lesson_where_it_was_left(numbers):
    stored = went_on(_visit(ROBUST, 0), 2, 0.5)[0]
    assert Visit.of(stored).step == 1
    stored = chosen(DOMAIN, stored, 2, 0.5)[0]
    assert (Visit.of(stored).lesson, Visit.of(stored).step) == (DOMAIN, 0)
    stored = went_on(went_on(stored, 2, 0.5)[0], 2, 0.5)[0]
    stored = chosen(ROBUST, stored, 2, 0.5)[0]
    assert (Visit.of(stored).lesson, Visit.of(stored).step) == (ROBUST, 1)
    assert Visit.of(reopened(stored, 2, 0.5)[0]) == Visit.of(stored)
    stored = went_back(went_back(stored, 2, 0.5)[0], 2, 0.5)[0]
    assert Visit.of(stored).step == 0
    assert Visit.of(stored).steps[DOMAIN] == 2


def test_steps_end_at_the_first_and_the_last(numbers):
    last = len(LESSONS[ROBUST].steps) - 1
    assert Visit.of(went_on(_visit(ROBUST, last), 2, 0.5)[0]).step == last
    assert Visit.of(went_back(_visit(ROBUST, 0), 2, 0.5)[0]).step == 0


@pytest.mark.parametrize(
    "stored",
    [
        None,
        7,
        "",
        "{",
        "[]",
        "null",
        "<script>",
        json.dumps({"lesson": "nothing", "steps": {"robust": 99, "domain": -5, "x": 1}}),
        json.dumps({"lesson": ["robust"], "steps": "all"}),
        '{"lesson": "robust", "steps": {"robust": NaN, "domain": "2", "ensembling": null}}',
        '{"lesson": {}, "steps": {"robust": 1e999}}',
    ],
)
def test_whatever_the_browser_kept_opens_some_step(stored):
    visit = Visit.of(stored)
    assert visit.lesson in LESSONS
    assert all(0 <= visit.steps[key] < len(LESSONS[key].steps) for key in LESSONS)
    assert len(reopened(stored, 2, 0.5)) == 17


def test_an_unknown_lesson_changes_nothing():
    for unknown in ("nothing", None, "<b>", ["robust"]):
        assert Visit.of(chosen(unknown, _visit(ROBUST, 2), 2, 0.5)[0]).lesson == ROBUST


def test_a_step_whose_numbers_are_missing_says_what_to_press(monkeypatch):
    monkeypatch.setattr(learn_lessons, "numbers_of", lambda key: None)
    shown = shown_step(Visit.of(_visit(INTERMEDIATE, 1)), 2, 0.5)
    assert "press “Compute this lesson”" in shown[3]
    assert shown[13]["visible"] is True
    assert "{" not in shown[2]
    assert "press “Compute this lesson”" in answered(_visit(INTERMEDIATE, 3), 2, 0.5, None)


def test_a_lesson_is_stopped_and_its_numbers_of_before_stay(numbers):
    job = begin_lesson(ROBUST)
    assert last_job(ROBUST) is job
    learn_lessons.stopped(_visit(ROBUST, 1), 2, 0.5)
    assert job.ended.wait(WAIT_S)
    assert job.state == "stopped"
    assert numbers_of(ROBUST) is numbers[ROBUST]
    assert shown_step(Visit.of(_visit(ROBUST, 1)), 2, 0.5)[14]["visible"] is False


def test_a_lesson_that_failed_says_why_and_may_be_computed_again(numbers, monkeypatch):
    def fail(lesson, on_progress):
        raise PoolError("The pool is gone: expected a folder, got none. Put it back.")

    monkeypatch.setattr(learn_numbers, "compute", fail)
    monkeypatch.setattr(learn_lessons, "numbers_of", lambda key: None)
    stored = learn_lessons.computed(_visit(DOMAIN, 1), 2, 0.5)[0]
    assert last_job(DOMAIN).ended.wait(WAIT_S)
    shown = learn_lessons.polled(stored, 2, 0.5)
    assert "The pool is gone" in shown[15]
    assert shown[13]["visible"] is True


def test_a_lesson_is_stopped_for_its_visitor_only(numbers, monkeypatch):
    go_on, begun, who = threading.Event(), threading.Event(), ["a"]

    def slow(lesson, on_progress):
        begun.set()
        assert go_on.wait(WAIT_S)
        on_progress(0.5, "half")
        return numbers[lesson.key]

    monkeypatch.setattr(learn_numbers, "compute", slow)
    monkeypatch.setattr(learn_numbers, "visitor", lambda: who[0])
    monkeypatch.setattr(learn_lessons, "numbers_of", lambda key: None)
    first = begin_lesson(DOMAIN)
    who[0] = "b"
    assert last_job(DOMAIN) is None, "what others began is not this visitor's to stop"
    second = begin_lesson(DOMAIN)
    assert second.run is first.run
    assert begun.wait(WAIT_S)
    learn_lessons.stopped(_visit(DOMAIN, 1), 2, 0.5)
    go_on.set()
    assert first.ended.wait(WAIT_S)
    assert (first.state, second.state) == ("done", "stopped")
