"""Advice: each sentence appears where its measurement says so, and not elsewhere."""

from dataclasses import replace

import pytest

import merging
from merging.advice import BEWARE, advise
from merging.metrics import Score
from merging.pipeline import evaluate
from merging.recipe import FisherSettings
from merging.rules import RuleSettings
from tests import cases


def texts(result):
    return " ".join(one.text for one in advise(result))


def test_interfering_experts_of_different_tasks_are_sent_to_kfac_and_to_a_scale(four_result):
    found = advise(four_result)
    assert [one.rule for one in found if one.rule] == ["kfac"]
    assert "a scale of 1.5 to 2" in texts(four_result)
    assert not any(one.level == BEWARE for one in found)


def test_who_has_chosen_kfac_is_not_sent_there(four_result):
    recipe = cases.quick_recipe("four-tasks", rule="kfac")
    result = merging.run(recipe)
    assert not any(one.rule for one in advise(result))
    assert "scale" not in texts(result)
    stretched = evaluate(four_result.prepared, replace(four_result.recipe, settings=RuleSettings(scale=1.5)))
    assert "a scale of" not in texts(stretched)


def test_models_of_one_task_are_sent_to_the_ensemble(seeds_result):
    assert "All models answer one task" in texts(seeds_result)
    assert "do not share a basin" not in texts(seeds_result)
    low = {task: replace(score, value=0.3) for task, score in seeds_result.scores["isotropic"].items()}
    assert "do not share a basin" in texts(replace(seeds_result, scores={**seeds_result.scores, "isotropic": low}))


def test_a_weak_expert_is_named(four_result):
    assert "is weak" not in texts(four_result)
    name, task = four_result.prepared.names[3], four_result.prepared.tasks[3].name
    near_chance = {**four_result.singles[name], task: Score("accuracy", 0.45, 0.4, 0.5, 250)}
    weak = replace(four_result, singles={**four_result.singles, name: near_chance})
    (found,) = [one for one in advise(weak) if "is weak" in one.text]
    assert found.level == BEWARE
    assert f"“{name}”" in found.text


def test_fishers_of_unequal_sizes_are_told_only_where_they_are_not_normalised():
    recipe = cases.quick_recipe("robust")
    result = merging.run(recipe)
    assert "sizes differ" not in texts(result)
    raw = evaluate(result.prepared, replace(recipe, fisher=replace(recipe.fisher, normalise="none")))
    assert "sizes differ" in texts(raw)
    assert "no fair mix" in texts(raw)


@pytest.mark.parametrize(("examples", "told"), [(16, True), (64, False)])
def test_few_examples_are_told(examples, told):
    result = merging.run(cases.two_tasks(fisher=FisherSettings(examples=examples)))
    assert ("are few for a Fisher" in texts(result)) == told


def test_a_merge_that_needs_no_fisher_is_advised_on_too():
    assert isinstance(advise(merging.run(cases.two_tasks(rule="isotropic"))), list)


def test_experts_that_all_guess_are_not_told_apart(four_result):
    singles = {
        name: {task: Score("accuracy", 0.44 + 0.01 * place, 0.4, 0.5, 250) for task in own}
        for place, (name, own) in enumerate(four_result.singles.items())
    }
    assert "is weak" not in texts(replace(four_result, singles=singles))


def test_how_far_models_have_moved_is_asked_of_the_recipes_own_base():
    recipe = replace(cases.quick_recipe("robust"), base=None)
    result = merging.run(recipe)
    assert "no fair mix" not in texts(result)
    based = replace(result, recipe=replace(recipe, base="zoo:digits/base"))
    assert "no fair mix" in texts(based)
    assert "no fair mix" not in texts(result)
