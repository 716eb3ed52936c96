"""The store of what is prepared: what its key ignores, and what it drops."""

import shutil
from dataclasses import replace

import pytest

from components.store import MOST_AT_HAND, Store, preparation_key
from merging.checkpoints import open_checkpoint
from merging.pipeline import evaluate, prepare
from merging.pools import open_pool
from merging.recipe import EvaluationSettings, FisherSettings, preset_recipe
from merging.rules import RuleSettings
from merging.scales import NORMALISATIONS
from merging.weights import ZERO_RULES
from tests import cases

RECIPE = preset_recipe(open_pool("digits"), "four-tasks")


class Prepared:
    """What the store asks of a prepared recipe: its base, its size, and to give back what it can."""

    def __init__(self, size: int) -> None:
        self.recipe, self._size, self.modules = RECIPE, size, []

    def size_bytes(self, *, with_models: bool) -> int:
        return self._size if with_models else 0

    def rest(self, *, with_models: bool) -> None:
        self._size = 0


def _fisher(**changes: object):
    return replace(RECIPE, fisher=replace(RECIPE.fisher, **changes))


def _numbered(number: int):
    return _fisher(seed=number)


LIVE = [
    RECIPE.with_weights([1.0, 0.0, 0.5, 0.2]),
    _fisher(floor=1e-3),
    *[_fisher(normalise=name) for name in NORMALISATIONS],
    *[_fisher(zero_rule=name) for name in ZERO_RULES],
    replace(RECIPE, evaluation=EvaluationSettings(split="validation")),
    replace(RECIPE, rule="isotropic", compare=("fisher", "ties")),
    replace(RECIPE, rule="ugm", settings=RuleSettings(scale=1.5, prior=2.0), layer_weights={"layer 0": (1, 0, 0, 0)}),
]
NOT_LIVE = [
    replace(RECIPE, models=RECIPE.models[:3]),
    replace(RECIPE, models=RECIPE.models[::-1]),
    replace(RECIPE, models=(replace(RECIPE.models[0], task=RECIPE.models[1].task), *RECIPE.models[1:])),
    _fisher(labels="empirical"),
    _fisher(examples=16),
    _fisher(seed=1),
    replace(RECIPE, heads="merge"),
    replace(RECIPE, device="cpu"),
    replace(RECIPE, evaluation=EvaluationSettings(tasks=("zoo:digits/rotated",))),
    replace(RECIPE, evaluation=EvaluationSettings(examples=10)),
    replace(RECIPE, rule="kfac"),
    replace(RECIPE, compare=("regmean",)),
    replace(RECIPE, rule="isotropic", compare=()),
]


@pytest.mark.parametrize("changed", LIVE, ids=lambda recipe: "live")
def test_the_key_ignores_what_is_applied_live(changed):
    assert preparation_key(changed) == preparation_key(RECIPE)


@pytest.mark.parametrize("changed", NOT_LIVE, ids=lambda recipe: "not live")
def test_the_key_tells_apart_what_needs_other_models_or_fishers(changed):
    assert preparation_key(changed) != preparation_key(RECIPE)


def test_the_base_is_ready_for_a_zero_rule_that_is_chosen_later(four_tasks, four_result):
    assert four_tasks.base
    assert FisherSettings().zero_rule != "base"
    later = replace(four_tasks, fisher=replace(four_tasks.fisher, zero_rule="base"))
    assert preparation_key(later) == preparation_key(four_tasks)
    assert evaluate(four_result.prepared, later).scores["fisher"]


def test_the_least_recently_used_are_dropped_over_the_limit():
    store = Store(limit_bytes=100)
    for number in range(3):
        store.put(_numbered(number), Prepared(40))  # 0 goes for 2
    assert store.get(_numbered(0)) is None
    assert store.get(_numbered(1)) is not None  # now used later than 2
    store.put(_numbered(3), Prepared(40))
    assert store.get(_numbered(2)) is None
    assert store.get(_numbered(1)) is not None
    assert store.get(_numbered(3)) is not None


def test_one_that_is_larger_than_the_limit_is_kept_alone():
    store = Store(limit_bytes=100)
    store.put(_numbered(0), Prepared(10))
    store.put(_numbered(1), Prepared(1000))
    assert store.get(_numbered(0)) is None
    assert store.get(_numbered(1)) is not None


def test_putting_again_replaces():
    store = Store(limit_bytes=100)
    first, second = Prepared(60), Prepared(60)
    store.put(RECIPE, first)
    store.put(RECIPE.with_weights([1.0, 0.0, 0.0, 0.0]), second)
    assert store.get(RECIPE) is second


def test_a_larger_estimate_serves_who_takes_less_of_it_and_not_the_other_way_round():
    levels = [replace(RECIPE, rule="isotropic", compare=()), RECIPE, replace(RECIPE, rule="kfac")]
    for place, recipe in enumerate(levels):
        store, prepared = Store(), Prepared(1)
        store.put(recipe, prepared)
        found = [store.get(other) for other in levels]
        assert found == [prepared] * (place + 1) + [None] * (2 - place)
        other = Prepared(1)
        store.put(levels[0], other)
        assert store.get(levels[0]) is other


def test_the_last_result_is_kept_and_no_other_recipes(four_result):
    store, recipe = Store(), four_result.recipe
    store.put(recipe, four_result.prepared, four_result)
    assert store.live_result(recipe) is four_result
    moved = recipe.with_weights([0.4, 0.2, 0.2, 0.2])
    other = store.live_result(moved)
    assert other.recipe == moved
    assert other.scores["fisher"] == evaluate(four_result.prepared, moved).scores["fisher"]
    assert store.live_result(moved) is other
    again = store.live_result(recipe)
    assert again is not four_result
    assert again.scores == four_result.scores


def test_a_dropped_recipe_has_no_result(four_result):
    store = Store(limit_bytes=1)
    store.put(four_result.recipe, four_result.prepared, four_result)
    store.put(_numbered(5), Prepared(1))
    assert store.live_result(four_result.recipe) is None


def test_heads_of_words_are_of_the_base_that_the_recipe_names(tmp_path):
    recipe = replace(preset_recipe(open_pool("digits-clip"), "four-towers"), rule="isotropic", compare=())
    other = tmp_path / "other"
    shutil.copytree(open_checkpoint(recipe.base).folder, other)
    store = Store()
    store.put(recipe, prepare(recipe))
    assert store.get(recipe) is not None
    assert store.get(replace(recipe, base=str(other))) is None
    assert store.live_result(replace(recipe, base=str(other))) is None


def test_only_those_used_last_keep_their_models_laid_end_to_end(four_result):
    store = Store()
    store.put(four_result.recipe, four_result.prepared)
    merger = four_result.prepared.merger
    merger.forget_flat()  # other tests merged with it, too, in other ways
    assert store.live_result(four_result.recipe.with_weights([4, 3, 2, 1])) is not None
    laid = merger.size_bytes()
    assert laid > 0
    for number in range(MOST_AT_HAND):
        assert merger.size_bytes() == laid
        store.put(_numbered(100 + number), Prepared(1))
    assert merger.size_bytes() == 0
    assert store.live_result(four_result.recipe.with_weights([1, 2, 3, 4])) is not None
    assert merger.size_bytes() == laid


def test_models_that_several_have_count_once():
    recipe = cases.two_tasks()
    other = replace(recipe, fisher=replace(recipe.fisher, labels="empirical"))
    first = prepare(recipe)
    second = prepare(other, others=lambda: [first])
    both = first.size_bytes() + second.size_bytes(with_models=False)
    assert second.size_bytes(with_models=False) < second.size_bytes() / 2 + 1
    store = Store(limit_bytes=both)
    store.put(recipe, first)
    store.put(other, second)
    assert store.all() == [first, second]
    store = Store(limit_bytes=both - 1)
    store.put(recipe, first)
    store.put(other, second)
    assert store.all() == [second]


def test_what_a_merge_keeps_counts_against_the_limit():
    recipe = cases.two_tasks(rule="kfac")
    first = prepare(recipe)
    store = Store(limit_bytes=2 * first.size_bytes())
    store.put(replace(recipe, heads="merge"), Prepared(first.size_bytes()))
    store.put(recipe, first)
    assert store.get(replace(recipe, heads="merge")) is not None
    assert store.live_result(recipe) is not None  # factors both layers
    assert store.get(replace(recipe, heads="merge")) is None
    assert store.get(recipe) is first
