"""What rules take and give, against values made by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from merging.diagnostics import COSTS, front, tradeoffs
from merging.fisher import Fisher
from merging.layer_factors import Factors, LayerFactors
from merging.recipe import ModelEntry, Recipe
from merging.rules import RULES, RuleSettings

WIDE, TALL = 3, 5
WEIGHT, BIAS = 4 * WIDE * TALL, 4 * TALL  # bytes of float32


def _fisher(examples: int, seconds: float, factor_seconds: float) -> Fisher:
    """Of one linear layer with a bias: A is 4 × 4, G 5 × 5."""
    a, g = torch.zeros(WIDE + 1, WIDE + 1), torch.zeros(TALL, TALL)
    factors = Factors({"weight": LayerFactors(a, g, a.clone(), "bias")}, examples, factor_seconds)
    return Fisher(
        {"weight": torch.zeros(TALL, WIDE), "bias": torch.zeros(TALL)}, examples, factors=factors, seconds=seconds
    )


@pytest.fixture
def prepared():
    """Two models, whose Fishers took 1 and 2 seconds, their factors 0.5 and 0.25 more."""
    parameters = {"weight": torch.zeros(TALL, WIDE), "bias": torch.zeros(TALL)}
    kept: dict[str, object] = {}

    def once(key: str, make: object) -> object:
        return kept.setdefault(key, make())

    fishers = [_fisher(10, 1.0, 0.5), _fisher(20, 2.0, 0.25)]
    return SimpleNamespace(names=["a", "b"], fishers=fishers, parameters=lambda: [parameters] * 2, kept=once)


@pytest.fixture
def recipe():
    """Any recipe with a base."""
    return Recipe((ModelEntry("a", "a"), ModelEntry("b", "b")), base="base")


def test_what_every_method_takes_is_what_its_needs_add_up_to(prepared, recipe):
    means = {"isotropic": 0.5, **{rule: 0.6 for rule in RULES if rule != "isotropic"}, "ensemble": 0.7, "experts": 0.8}
    found = {one.method: one for one in tradeoffs(prepared, recipe, means, dict.fromkeys(RULES, 0.125))}
    assert list(found) == list(means)
    assert {name: one.score for name, one in found.items()} == means
    fishers, a, g = 2 * (WEIGHT + BIAS), 2 * 4 * (WIDE + 1) ** 2, 2 * 4 * TALL**2
    expected = {
        "isotropic": (0.125, 0, 0),
        "fisher": (3.125, fishers, 30),
        "row": (3.125, fishers, 30),
        "kfac": (3.875, fishers + a + g, 30),
        "regmean": (3.875, a, 30),
        "regmean_weighted": (3.875, fishers + a, 30),
        "ugm": (3.125, fishers + WEIGHT + BIAS, 30),
        "task_arithmetic": (0.125, WEIGHT + BIAS, 0),
        "ties": (0.125, WEIGHT + BIAS, 0),
        "dare": (0.125, WEIGHT + BIAS, 0),
        "slerp": (0.125, 0, 0),
        "ensemble": (0, 0, 0),
        "experts": (0, 0, 0),
    }
    assert {name: tuple(one.cost(kind) for kind in COSTS) for name, one in found.items()} == expected
    assert {name for name, one in found.items() if one.is_merge} == set(RULES)
    assert {one.models for one in found.values() if one.is_merge} == {1}
    assert found["ensemble"].models == found["experts"].models == 2


def test_a_scale_takes_the_base_for_every_rule(prepared, recipe):
    stretched = replace(recipe, settings=RuleSettings(scale=1.5))
    (point,) = tradeoffs(prepared, stretched, {"isotropic": 0.5}, {"isotropic": 0.0})
    assert point.memory_bytes == WEIGHT + BIAS


def test_the_front_are_those_that_no_other_beats_from_cheap_to_dear():
    #        beaten by 1    front        front        as dear, worse  beaten by 2  front, equal to 2
    points = [(2.0, 0.4), (1.0, 0.5), (3.0, 0.9), (3.0, 0.8), (9.0, 0.9), (3.0, 0.9), (0.0, 0.1)]
    assert front(points) == [6, 1, 2, 5]
    assert front([(1.0, 0.5)]) == [0]
    assert front([]) == []


def test_the_points_of_a_real_merge_are_the_results_own(four_result):
    result = four_result
    means = {method: result.mean(method) for method in result.scores}
    found = {one.method: one for one in tradeoffs(result.prepared, result.recipe, means, result.merge_seconds)}
    assert set(found) == set(result.scores)
    assert found["fisher"].seconds == pytest.approx(
        result.merge_seconds["fisher"] + sum(fisher.seconds for fisher in result.prepared.fishers)
    )
    assert found["isotropic"].seconds == result.merge_seconds["isotropic"]
    assert found["fisher"].memory_bytes > 0
    assert found["fisher"].examples == sum(fisher.examples for fisher in result.prepared.fishers)
