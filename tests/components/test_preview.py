"""A merge while its slider moves: on fewer rows where all of them take long, then on all, unless the hand moved on."""

import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.context import LocalContext

from components.pages import PAGES, Pages
from components.right_of_way import LIVE
from components.score_charts import previewed, settled, shown
from components.store import FEWEST_ROWS, STORE, Store
from components.tables import PREVIEW
from merging.errors import Cancelled
from merging.pipeline import Result, evaluate, prepare
from merging.recipe import Recipe
from tests.benchmarks.slider import form_values

WIDTH_PX = 1200.0
SKIPPED = [gr.skip()] * 5


def took(result, seconds: float):
    """The result, as if the evaluation of its merges had taken so long."""
    return replace(result, timings={**result.timings, "evaluate": seconds})


@pytest.fixture
def slow(four_result):
    """The page's store with the four-task recipe, whose last evaluation was slow; its recipe."""
    STORE.put(four_result.recipe, four_result.prepared, took(four_result, 30.0))
    return four_result.recipe.with_weights([0.4, 0.3, 0.2, 0.1])


def test_what_is_evaluated_in_time_is_evaluated_on_all_rows(four_result):
    store, moved = Store(), four_result.recipe.with_weights([0.1, 0.2, 0.3, 0.4])
    store.put(four_result.recipe, four_result.prepared, took(four_result, 0.01))
    result = store.preview(moved)
    assert result.recipe == moved
    assert store.live_result(moved) is result


def test_what_takes_long_is_evaluated_on_a_sample_which_is_that_of_a_recipe_with_so_many_examples(four_result):
    store, moved = Store(), four_result.recipe.with_weights([0.1, 0.2, 0.3, 0.4])
    last = took(four_result, 30.0)
    store.put(four_result.recipe, four_result.prepared, last)
    result = store.preview(moved)
    sampled = replace(moved, evaluation=replace(moved.evaluation, examples=FEWEST_ROWS))
    assert result.recipe == sampled
    assert {score.n for scores in result.scores.values() for score in scores.values()} == {FEWEST_ROWS}
    assert result.scores == evaluate(prepare(sampled), sampled).scores
    assert store.live_result(four_result.recipe) is last  # a preview is not what is exported
    assert store.preview(moved.with_weights([1, 1, 1, 0])).prepared.fixed is result.prepared.fixed


def test_the_sample_grows_with_what_fits(four_result):
    store, moved = Store(), four_result.recipe.with_weights([0.1, 0.2, 0.3, 0.4])
    store.put(four_result.recipe, four_result.prepared, took(four_result, 30.0))
    first = store.preview(moved)
    rows = max(score.n for score in four_result.scores["fisher"].values())
    store._results = dict.fromkeys(store._results, took(four_result, 0.2))
    second = store.preview(moved)
    assert first.recipe.evaluation.examples == FEWEST_ROWS
    fitting = rows * 0.06 / 0.2
    assert fitting / 2 < second.recipe.evaluation.examples == 2 * FEWEST_ROWS <= fitting
    store._results = dict.fromkeys(store._results, took(four_result, 30.0))
    assert store.preview(moved.with_weights([1, 1, 1, 0])).prepared.fixed is first.prepared.fixed, "it is not made anew"


def test_the_page_says_that_it_is_a_preview_and_then_shows_what_all_rows_give(slow):
    values = form_values(slow, list(slow.weights))
    preview = previewed(WIDTH_PX, *values)
    assert PREVIEW in preview[1]
    assert "on 32 rows of each task" in preview[1]
    full = settled("a preview", WIDTH_PX, *values)
    assert PREVIEW not in full[1]
    assert full[1:] == shown(WIDTH_PX, *values)[1:]
    assert full[3] != preview[3]


def test_a_picture_of_all_rows_is_not_made_again(slow):
    values = form_values(slow, list(slow.weights))
    shown(WIDTH_PX, *values)
    assert PREVIEW not in previewed(WIDTH_PX, *values)[1]
    assert settled("", WIDTH_PX, *values) == SKIPPED


def test_every_preview_has_a_name_of_its_own(slow):
    values = form_values(slow, list(slow.weights))
    assert previewed(WIDTH_PX, *values)[1] != previewed(WIDTH_PX, *values)[1]  # the page asks for all rows of each


def test_all_rows_are_given_up_once_the_hand_moves_on(slow):
    form = [WIDTH_PX, *form_values(slow, list(slow.weights))]
    answers = []
    before = STORE.live_result(slow.with_weights([1.0, 0.0, 0.0, 0.0]))
    PAGES.welcome("hand", None)
    PAGES.begin_picture("hand", tuple(form[1:]))
    thread = threading.Thread(target=lambda: answers.append(asked("hand", settled, "a preview", *form)))
    with LIVE.taken():  # it waits between its batches
        thread.start()
        while PAGES._pages["hand"].picture < 2:
            time.sleep(0.001)
        PAGES.begin_picture("hand")
    thread.join()
    assert answers == [SKIPPED]
    assert STORE.live_result(before.recipe) is before


def asked(session: str, answer: Callable, *values: object) -> list[object]:
    """What an event of this session answers."""

    def within() -> list[object]:
        LocalContext.request.set(SimpleNamespace(session_hash=session))
        return answer(*values)

    return copy_context().run(within)


def test_a_form_that_the_hand_has_left_is_not_settled(slow):
    PAGES.welcome("crowded", None)
    left, now = ([WIDTH_PX, *form_values(slow, weights)] for weights in ([0.4, 0.3, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]))
    for move in (left, now):
        assert PREVIEW in asked("crowded", previewed, *move)[1]
    assert asked("crowded", settled, "a preview", *left) == SKIPPED  # both stood in line behind other visitors
    full = asked("crowded", settled, "a preview", *now)
    assert PREVIEW not in full[1]
    assert "Fisher merge" in full[1]
    assert "Fisher merge" in asked("a program", settled, "a preview", *left)[1]


def test_a_preview_that_comes_after_the_picture_of_its_form_is_settled(slow):
    """A slow preview's answer may reach the page after that of a setting which was changed meanwhile."""
    PAGES.welcome("late", None)
    form = [WIDTH_PX, *form_values(slow, list(slow.weights))]
    assert asked("late", shown, *form)[1:] == asked("late", settled, "a preview", *form)[1:]


def test_a_preview_that_a_picture_overtakes_is_not_shown(slow, monkeypatch):
    PAGES.welcome("slow hand", None)
    form = [WIDTH_PX, *form_values(slow, list(slow.weights))]
    preview = STORE.preview

    def overtaken(recipe: Recipe) -> Result | None:
        assert "Fisher merge" in asked("slow hand", shown, *form)[1]
        return preview(recipe)

    monkeypatch.setattr(STORE, "preview", overtaken)
    assert asked("slow hand", previewed, *form) == SKIPPED


def test_a_picture_that_another_overtakes_is_not_shown(slow, monkeypatch):
    PAGES.welcome("overtaken", None)
    values = form_values(slow, list(slow.weights))

    assert "Fisher merge" in asked("overtaken", shown, WIDTH_PX, *values)[1]
    live_result = STORE.live_result

    def overtaken(recipe: Recipe) -> Result | None:
        PAGES.begin_picture("overtaken")
        return live_result(recipe)

    monkeypatch.setattr(STORE, "live_result", overtaken)
    assert asked("overtaken", shown, WIDTH_PX, *values) == SKIPPED


def test_only_the_latest_picture_of_a_page_goes_on():
    pages = Pages()
    for session in ("one", "two"):
        pages.welcome(session, None)
    first, other = pages.begin_picture("one"), pages.begin_picture("two")
    first()
    second = pages.begin_picture("one")
    with pytest.raises(Cancelled):
        first()
    second()
    other()
    program = pages.begin_picture("program")
    pages.begin_picture("program")
    program()  # every answer is its own
