"""What the Explore λ tab does, without a browser."""

import math
import threading
import time
from dataclasses import replace

import pytest

from components import explore_actions as actions
from components import explore_odds
from components.explore_figures import parsed
from components.explore_trials import TRIED, Tried, search_key
from components.form import ROWS
from components.jobs import REGISTRY, Registry
from components.journal import _digest
from components.right_of_way import RightOfWay
from components.store import STORE
from merging import prepare
from merging.errors import RecipeError
from merging.search import Trial, rules_of
from tests import cases
from tests.benchmarks.slider import form_values

NOTICE, LABEL, STOP, PROGRESS, TIMER, JOB, PICTURE, BEST, MARK = 0, 2, 3, 4, 5, 6, 8, 13, 17


@pytest.fixture
def recipe():
    """Two models, prepared, of which nothing was tried."""
    found = cases.two_tasks()
    # The page reads every row, and a seed of its own keeps other tests' trials away.
    found = replace(found, evaluation=replace(found.evaluation, examples="all"))
    STORE.put(found, prepare(found))
    TRIED._kept.clear()
    return found


def shown(recipe, drawn: str = "", job_id: str = "", objective: object = "mean", width: float = 1280) -> list:
    return actions.watched(drawn, job_id, objective, 10, width, *form_values(recipe, recipe.weights))


def finished(recipe, objective: str = "mean") -> str:
    answer = actions.begun("", "", objective, 10, 1280, *form_values(recipe, recipe.weights))
    job = REGISTRY.get(answer[JOB])
    assert job.ended.wait(120)
    return job.id


def test_a_tab_on_which_nothing_was_tried_says_what_to_press(recipe):
    answer = shown(recipe)
    assert len(answer) == actions.COUNT_OUTPUTS
    assert "press “Draw the curve”" in answer[PROGRESS]
    assert answer[LABEL]["value"] == "Draw the curve"
    assert answer[PICTURE] is None


def test_what_was_tried_is_drawn_once_and_reported_on_test(recipe):
    job_id = finished(recipe)
    answer = shown(recipe, job_id=job_id)
    assert answer[PICTURE] is not None
    assert "Chosen on validation, reported on test" in answer[BEST]
    assert len(TRIED.of(recipe)) == 102
    assert [len(TRIED.of(recipe, "test").of(rule)) for rule in ("fisher", "isotropic")] == [1, 1]
    again = shown(recipe, drawn=answer[MARK], job_id=job_id)
    assert not hasattr(again[PICTURE], "data"), "the same picture is not drawn twice"
    unseen = shown(recipe, job_id=job_id, width=0)
    assert not hasattr(unseen[PICTURE], "data"), "nothing is drawn for nobody"
    moved = shown(recipe.with_weights([0.9, 0.1]), drawn=answer[MARK], job_id=job_id)
    assert moved[PICTURE] is not None, "the sliders' place is"


def test_a_rule_that_is_added_is_tried_and_the_others_are_not_tried_again(recipe):
    finished(recipe)
    before = {rule: TRIED.of(recipe).of(rule) for rule in ("fisher", "isotropic")}
    more = replace(recipe, rule="ties", compare=("isotropic", "row"))
    assert rules_of(more) == ("ties", "isotropic", "row")
    assert shown(more)[LABEL]["value"] == "Go on"
    job_id = finished(more)
    assert [len(TRIED.of(more).of(rule)) for rule in ("ties", "row")] == [51, 51]
    assert {rule: TRIED.of(recipe).of(rule) for rule in before} == before
    answer = shown(more, job_id=job_id)
    assert [title in answer[BEST] for title in ("TIES", "isotropic average", "row Fisher", "Fisher merge")] == [
        *[True, True, True, False]
    ]
    best = max(TRIED.of(more).of("ties"), key=lambda trial: trial.mean.value)
    moved = actions.best_used("mean", *form_values(more, more.weights))
    assert [one["value"] for one in moved[1:3]] == pytest.approx(best.weights, abs=1e-4)


def test_of_more_than_two_models_the_pages_rule_and_isotropic_averaging_are_tried(recipe):
    three = replace(recipe, models=(*recipe.models, recipe.models[0]), rule="ties", compare=("isotropic", "row"))
    assert rules_of(three) == ("ties", "isotropic")
    assert rules_of(replace(three, rule="isotropic")) == ("isotropic",)


def test_the_best_moves_the_sliders_there(recipe):
    finished(recipe, "worst")
    answer = actions.best_used("worst", *form_values(recipe, recipe.weights))
    best = max(TRIED.of(recipe).of("fisher"), key=lambda trial: (trial.score("worst").value, trial.mean.value))
    assert [one["value"] for one in answer[1:3]] == pytest.approx(best.weights, abs=1e-4)
    assert len(answer) == 1 + ROWS


def test_without_trials_there_is_no_best_and_the_sliders_stay(recipe):
    answer = actions.best_used("mean", *form_values(recipe, recipe.weights))
    assert "alert" in answer[0]
    assert not [one for one in answer[1:] if one.get("value") is not None]


def test_a_poll_tells_how_far_the_search_is_and_asks_for_pictures_in_ever_larger_steps(recipe):
    go_on, at = threading.Event(), threading.Event()

    def work(on_progress: object) -> None:
        for count in range(101):
            on_progress(count / 100, f"{count} of 100 merges tried")
            at.set()
            go_on.wait(60)
            go_on.clear()

    job = REGISTRY.start(f"{search_key(recipe)}\nmean 10", work, lane="search")
    drawn = shown(recipe, job_id=job.id)[MARK]
    dues = []
    for _ in range(101):
        assert at.wait(60)
        at.clear()
        says, due = actions.polled(drawn, job.id, 1280)
        dues.append(due)
        unseen = actions.polled(drawn, job.id, 0)
        assert job.text in says
        assert not any(isinstance(one, str) for one in unseen), "nobody looks"
        go_on.set()
    assert job.ended.wait(60)
    steps = [index for index in range(1, 101) if dues[index] != dues[index - 1]]
    assert 5 < len(steps) < 15
    assert steps[1] - steps[0] < 3
    assert steps[-1] - steps[-2] > 20
    says, due = actions.polled(drawn, job.id, 1280)
    assert "Ready" in says
    assert due != dues[-1]
    elsewhere, _ = actions.polled("", REGISTRY.start("other", lambda on_progress: go_on.wait(9)).id, 1280)
    go_on.set()
    assert "A search for other models or settings is running" in elsewhere


def test_a_search_that_ends_while_the_browser_shows_another_page_is_drawn_on_coming_back(recipe):
    go_on = threading.Event()
    job = REGISTRY.start(f"{search_key(recipe)}\nmean 10", lambda on_progress: go_on.wait(60), lane="search")
    drawn = shown(recipe, job_id=job.id)[MARK]
    go_on.set()
    assert job.ended.wait(60)
    away, due = -1, actions.polled(drawn, job.id, -1)[1]
    left = shown(recipe, drawn=drawn, job_id=job.id, width=away)
    assert not isinstance(left[MARK], str), "nothing is drawn for nobody"
    assert left[TIMER].active, "the page asks on"
    assert not shown(recipe, drawn=drawn, job_id=job.id, width=0)[TIMER].active, "opening the tab draws it anyway"
    assert actions.polled(drawn, job.id, 1280)[1] != due
    assert actions.polled(drawn, "forgotten", 1280)[1] != actions.polled(drawn, "forgotten", away)[1]
    back = shown(recipe, drawn=drawn, job_id=job.id)
    assert isinstance(back[MARK], str)
    assert not back[TIMER].active
    assert not shown(recipe, drawn=back[MARK], job_id=job.id, width=away)[TIMER].active


def test_other_models_do_not_see_these_points_and_are_told_of_the_running_search(recipe):
    finished(recipe)
    ended = threading.Event()
    job = REGISTRY.start(f"{search_key(recipe)}\nmean 10", lambda on_progress: ended.wait(60), lane="search")
    try:
        other = replace(recipe, models=tuple(reversed(recipe.models)))
        STORE.put(other, prepare(other))
        answer = shown(other, job_id=job.id)
        assert "A search for other models or settings is running" in answer[PROGRESS]
        assert answer[PICTURE] is None
        assert answer[STOP]["interactive"]
        assert not answer[LABEL]["interactive"]
    finally:
        ended.set()
        job.ended.wait(60)


def test_settings_that_change_a_merge_have_points_of_their_own_and_weights_have_not(recipe):
    assert search_key(recipe) == search_key(recipe.with_weights([0.9, 0.3]))
    assert search_key(recipe) == search_key(replace(recipe, evaluation=replace(recipe.evaluation, split="validation")))
    settings = [{"normalise": "l2"}, {"floor": 1e-3}, {"seed": 5}, {"zero_rule": "target"}]
    keys = {search_key(replace(recipe, fisher=replace(recipe.fisher, **one))) for one in settings}
    assert len(keys | {search_key(recipe), search_key(replace(recipe, heads="merge"))}) == 6


def test_a_fisher_that_is_not_finite_fails_the_search_with_a_message_and_keeps_the_page(recipe):
    prepared = STORE.get(recipe)
    name = prepared.merged_names[0]
    broken = {**prepared.fishers[0].tensors, name: prepared.fishers[0][name] * math.nan}
    prepared.fishers[0] = replace(prepared.fishers[0], tensors=broken)
    answer = shown(recipe, job_id=finished(recipe))
    assert "expected finite numbers" in answer[NOTICE]
    assert "alert" in answer[NOTICE]
    assert answer[LABEL]["interactive"]
    assert answer[PICTURE] is not None, "isotropic averaging does not need it"


def test_settings_without_fishers_models_or_meaning_are_told(recipe):
    values = form_values(recipe, recipe.weights)
    for models, told in (
        ([], "No models yet"),
        (values[0][:1], "expected two or more models"),
        (values[0] * 8, "at most 8"),
    ):
        for answer in (
            actions.watched("", "", "mean", 10, 1280, models, *values[1:]),
            actions.begun("", "", "mean", 10, 1280, models, *values[1:]) if models else [f"{told}"],
        ):
            assert told in answer[NOTICE]
    unknown = replace(recipe, fisher=replace(recipe.fisher, seed=99))
    assert "press “Estimate Fisher”" in shown(unknown)[NOTICE]
    assert "press “Estimate Fisher”" in actions.begun("", "", "mean", 10, 1280, *form_values(unknown, [1, 1]))[NOTICE]


@pytest.mark.parametrize("objective", [None, "", "task:nine", 7, ["mean"]])
def test_an_unknown_objective_is_the_mean(recipe, objective):
    assert shown(recipe, objective=objective)[1]["value"] == "mean"


@pytest.mark.parametrize(
    "value", ["", None, "a b", "0.5", "1 2", "nan 1", "inf 0", "0 0", "-1 1", "0.5 " * 99, 3, ["0.5", "0.5"]]
)
def test_what_is_no_point_is_refused(value):
    with pytest.raises(RecipeError, match="expected 2 weights from 0 to 1"):
        parsed(value, 2)
    assert "alert" in actions.picked(value, ["a", "b"])[0]


@pytest.mark.parametrize(
    ("odds", "first"), [(0, 0.5), (1, 1 / (1 + math.exp(-1))), (-6, 0.0025), (6, 0.9975), (900, 1)]
)
def test_log_odds_are_both_weights_and_back(recipe, odds, first):
    models = form_values(recipe, recipe.weights)[0]
    answer = explore_odds.odds_moved(odds, models)
    weights = [one["value"] for one in answer[1:3]]
    assert weights == pytest.approx([first, 1 - first], abs=1e-4)
    assert explore_odds.odds_of(*form_values(recipe, weights)) == pytest.approx(max(-6, min(6, odds)), abs=0.03)


@pytest.mark.parametrize(("odds", "models"), [(math.nan, 2), (None, 2), ("1", 2), (1, 3), (1, 0)])
def test_log_odds_without_meaning_move_nothing(odds, models):
    assert not [
        one for one in explore_odds.odds_moved(odds, ["zoo:digits/loop"] * models) if one.get("value") is not None
    ]


def test_what_was_tried_is_bounded_by_recipes(recipe):
    tried = Tried(limit=2)
    seeds = [replace(recipe, fisher=replace(recipe.fisher, seed=seed)) for seed in range(3)]
    first = tried.of(seeds[0])
    first.put("fisher", (1.0, 0.0), "told")
    assert tried.of(seeds[0]) is first
    tried.of(seeds[1])
    tried.of(seeds[2])
    assert tried.of(seeds[0]) is not first
    assert len(tried.of(seeds[0])) == 0


def test_a_trial_is_scored_like_the_merge_on_the_page(recipe):
    finished(recipe)
    trials = TRIED.of(recipe).of("fisher")
    assert all(isinstance(trial, Trial) for trial in trials)
    assert len({trial.weights for trial in trials}) == len(trials) == 51


def test_long_work_waits_for_what_is_live_but_not_for_ever():
    way, order = RightOfWay(quiet_s=0.3), []

    def work():
        way.give(limit_s=30)
        order.append("work")
        order.append(time.monotonic())

    with way.taken():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(0.2)
        order.append("live")
    ended = time.monotonic()
    thread.join(30)
    assert order[:2] == ["live", "work"]
    assert order[2] - ended > 0.25, "and a moment longer, for the picture"
    with way.taken():
        way.give(limit_s=0.01)
        order.append("enough")
    assert order[-1] == "enough"


def test_where_hands_never_rest_long_work_hardly_waits():
    """One visitor's hand rests now and then; fifty visitors' hands never do, and their estimates must end, too."""
    way = RightOfWay(quiet_s=30, patience_s=0.2)
    with way.taken():
        begun = time.monotonic()
        way.give(limit_s=0.5)
        assert time.monotonic() - begun > 0.45
    with way.taken():  # before it was quiet
        begun = time.monotonic()
        way.give(limit_s=5)
        assert time.monotonic() - begun < 2


def test_a_search_does_not_keep_an_estimate_waiting():
    registry, ended = Registry(), threading.Event()
    search = registry.start("search", lambda on_progress: ended.wait(60), lane="search")
    estimate = registry.start("estimate", lambda on_progress: "there")
    assert estimate.ended.wait(30)
    assert search.active
    ended.set()
    assert search.ended.wait(30)


def test_a_search_that_a_restart_ended_is_told(recipe, monkeypatch):
    monkeypatch.setitem(REGISTRY._journal._lost, _digest("0" * 32), {"kind": "search of λ", "at": 0.0})
    answer = shown(recipe, job_id="0" * 32)
    assert "The server was restarted before your search of λ had ended" in answer[PROGRESS]
    assert answer[JOB] == "", "said once"
    assert answer[LABEL]["interactive"]
    assert "restarted" not in shown(recipe, job_id="1" * 32)[PROGRESS]
