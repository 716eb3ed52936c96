"""Curves, maps and searches over real merges."""

from dataclasses import replace

import pytest

from merging import Cancelled, MergingError, prepare
from merging.pipeline import evaluate
from merging.recipe import EvaluationSettings
from merging.search import RULES, Trials, best_of, constant_trials, explore, map_points, try_once
from tests import cases

ROWS = EvaluationSettings(examples=40)


class Counted(Trials):
    """Trials that tell how often something was tried."""

    def __init__(self) -> None:
        super().__init__()
        self.puts = 0

    def put(self, *arguments: object) -> None:
        self.puts += 1
        super().put(*arguments)


@pytest.fixture(scope="module")
def two():
    """Two prepared models, and everything that their curve holds. Not to be changed."""
    recipe = cases.two_tasks()
    prepared, trials = prepare(recipe), Counted()
    found = explore(prepared, recipe, budget=0, trials=trials)
    return recipe, prepared, trials, found


@pytest.fixture(scope="module")
def four():
    """Four prepared models. Not to be changed."""
    recipe = cases.quick_recipe("four-tasks", evaluation=ROWS)
    return recipe, prepare(recipe)


def _values(trials) -> list[tuple[object, ...]]:
    return [(one.rule, one.weights, one.mean.value, {t: s.value for t, s in one.scores.items()}) for one in trials]


def _on(recipe, split: str):
    return replace(recipe, evaluation=replace(recipe.evaluation, split=split))


def test_a_curve_holds_the_papers_grid_for_both_rules(two):
    _, _, trials, found = two
    for rule in RULES:
        assert [trial.weights for trial in found.tried[rule]] == map_points(2)
    assert trials.puts == len(trials) == 102
    assert found.failed == 0
    assert "51 weightings" in found.summary


def test_the_ends_of_a_curve_are_the_single_models(two):
    _, prepared, _, found = two
    singles = {one.weights: one for one in constant_trials(prepared, "validation")[1]}
    assert set(singles) == {(1.0, 0.0), (0.0, 1.0)}
    for rule in RULES:
        for end in (found.tried[rule][0], found.tried[rule][-1]):
            own = singles[end.weights].scores
            assert own
            assert all(end.scores[task] == score for task, score in own.items())


@pytest.mark.parametrize("place", [7, 25, 44])
def test_every_point_is_what_a_merge_at_these_weights_scores(two, place):
    recipe, prepared, _, found = two
    for rule in RULES:
        trial = found.tried[rule][place]
        result = evaluate(prepared, _on(recipe, "validation").with_weights(trial.weights))
        assert trial.scores == result.scores[rule]
        assert trial.mean.value == pytest.approx(result.mean(rule))
        assert trial.mean.low < trial.mean.value < trial.mean.high


def test_the_ensemble_is_the_merges_own(two):
    recipe, prepared, _, _ = two
    assert (
        constant_trials(prepared, "validation")[0].scores
        == evaluate(prepared, _on(recipe, "validation")).scores["ensemble"]
    )


@pytest.mark.parametrize("objective", ["mean", "worst", "task:large"])
def test_the_best_is_the_highest_on_validation_and_its_test_score_is_the_merges(two, objective):
    recipe, prepared, trials, _ = two
    found = explore(prepared, recipe, objective=objective, budget=0, trials=trials)
    assert trials.puts == 102, "another objective tries nothing again"
    for rule in RULES:
        best = found.best(rule)
        assert best.score(objective).value == max(trial.score(objective).value for trial in found.tried[rule])
        on_test = try_once(prepared, recipe, rule, best.weights, split="test", trials=Trials())
        assert on_test.scores == evaluate(prepared, recipe.with_weights(best.weights)).scores[rule]


def test_equal_fishers_give_equal_curves(two):
    recipe = two[0]
    alike = prepare(recipe)
    alike.fishers[:] = [alike.fishers[0]] * 2
    found = explore(alike, recipe, budget=0)
    for one, other in zip(found.tried["fisher"], found.tried["isotropic"], strict=True):
        assert one.scores == other.scores


def test_three_models_are_drawn_on_a_lattice_whose_edges_are_the_curves_of_two(four):
    recipe, _ = four
    three = replace(recipe, models=recipe.models[:3])
    found = explore(prepare(three), three, budget=0, rules=["fisher"])
    assert [trial.weights for trial in found.tried["fisher"]] == map_points(3)
    pair = replace(recipe, models=recipe.models[:2])
    prepared_pair = prepare(pair)
    for trial in found.tried["fisher"]:
        if trial.weights[2] == 0 and 0 < trial.weights[0] < 1:
            alone = try_once(prepared_pair, pair, "fisher", trial.weights[:2], split="validation", trials=Trials())
            assert {task: trial.scores[task] for task in alone.scores} == alone.scores


def test_a_search_goes_on_where_it_was_stopped_tries_nothing_twice_and_ends_the_same(four):
    recipe, prepared = four
    whole = explore(prepared, recipe, budget=24, trials=Trials())
    trials = Counted()
    for limit in (5, 31):

        def stop(fraction, text, limit=limit):
            if len(trials) >= limit:
                raise Cancelled

        with pytest.raises(Cancelled):
            explore(prepared, recipe, budget=24, trials=trials, on_progress=stop)
        assert len(trials) == limit
    resumed = explore(prepared, recipe, budget=24, trials=trials)
    assert trials.puts == len(trials)
    for rule in RULES:
        assert len(whole.tried[rule]) == 24
        assert _values(resumed.tried[rule]) == _values(whole.tried[rule])
        best = best_of(whole.tried[rule], "mean")
        assert best.mean.value >= whole.tried[rule][0].mean.value, "equal weights are among those tried"


def test_more_trials_go_on_from_fewer(two):
    recipe, prepared, _, _ = two
    trials = Counted()
    explore(prepared, recipe, budget=0, rules=["fisher"], trials=trials)
    explore(prepared, recipe, budget=55, rules=["fisher"], trials=trials)
    assert trials.puts == len(trials)
    assert 51 < len(trials) <= 55


def test_a_search_is_stopped_within_an_evaluation(two):
    recipe, prepared, _, _ = two
    trials, calls = Counted(), []

    def stop(fraction, text):
        calls.append(fraction)
        if len(calls) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        explore(prepared, recipe, budget=0, trials=trials, on_progress=stop)
    assert trials.puts == 0, "it is asked between batches, not only between merges"


def test_progress_rises_from_nothing_to_almost_all(two):
    recipe, prepared, _, _ = two
    seen = []
    explore(prepared, recipe, budget=0, on_progress=lambda fraction, text: seen.append((fraction, text)))
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert fractions[-1] == pytest.approx(101 / 102)
    assert seen[-1][1] == "101 of 102 merges tried on validation"


def test_a_search_leaves_what_others_look_at_alone(two):
    recipe, prepared, _, _ = two
    before = evaluate(prepared, recipe).scores
    explore(prepared, recipe, budget=0, rules=["fisher"])
    assert evaluate(prepared, recipe).scores == before


def test_a_fisher_that_is_not_finite_is_told_and_the_other_rules_trials_are_kept(two):
    recipe = two[0]
    broken, trials = prepare(recipe), Trials()
    name = broken.merged_names[0]
    tensors = dict(broken.fishers[1].tensors)
    tensors[name] = tensors[name] * float("nan")
    broken.fishers[1] = replace(broken.fishers[1], tensors=tensors)
    with pytest.raises(MergingError, match=r"No weighting could be evaluated.*expected finite numbers"):
        explore(broken, recipe, budget=0, trials=trials)
    assert trials.of("fisher") == []
    assert len(trials.of("isotropic")) == 51


def test_an_unknown_objective_is_told_before_anything_is_tried(two):
    recipe, prepared, _, _ = two
    trials = Trials()
    with pytest.raises(MergingError, match="expected one of"):
        explore(prepared, recipe, objective="task:nine", trials=trials)
    assert len(trials) == 0


def test_three_rows_are_enough_to_draw_a_curve():
    recipe = cases.two_tasks(evaluation=EvaluationSettings(examples=3))
    found = explore(prepare(recipe), recipe, budget=0, rules=["fisher"])
    assert {score.n for trial in found.tried["fisher"] for score in trial.scores.values()} == {3}
    assert all(0 <= trial.mean.low <= trial.mean.value <= trial.mean.high <= 1 for trial in found.tried["fisher"])
