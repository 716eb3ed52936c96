"""Score against cost, from points whose picture is known; and the panel around it."""

import json
from dataclasses import replace

import pytest

from components import tradeoffs as panel
from components.store import STORE
from components.style import TITLES
from components.tradeoff_figures import COST_TITLES, cost_text, tradeoff_picture
from merging.diagnostics import COSTS, Tradeoff
from merging.recipe import EvaluationSettings
from tests.benchmarks.slider import form_values

POINTS = [
    Tradeoff("experts", 0.98, 0.0, 0, 0, 4),
    Tradeoff("isotropic", 0.7, 0.01, 0, 0, 1),
    Tradeoff("fisher", 0.8, 2.0, 2_000_000, 1024, 1),
    Tradeoff("kfac", 0.96, 4.0, 7_000_000, 1024, 1),
    Tradeoff("regmean", 0.75, 3.5, 2_500_000, 1024, 1),
    Tradeoff("ensemble", 0.6, 0.0, 0, 0, 4),
]


def _drawn(kind: str, points=POINTS, width: int = 1200) -> tuple[object, dict[str, dict]]:
    picture = tradeoff_picture(points, kind, own="fisher", split="test", width_px=width)
    drawn = json.loads(picture.figure.to_json())
    return picture, {one["name"]: one for one in drawn["data"]} | {"layout": drawn["layout"]}


@pytest.mark.parametrize("kind", COSTS)
def test_points_stand_at_powers_of_ten_and_what_costs_nothing_before_them(kind):
    _, drawn = _drawn(kind)
    for point in POINTS:
        trace = drawn[TITLES[point.method]]
        assert trace["y"] == [pytest.approx(100 * point.score)]
        if point.cost(kind):
            assert 10 ** trace["x"][0] == pytest.approx(point.cost(kind))
    nothing = [drawn[TITLES[point.method]]["x"][0] for point in POINTS if not point.cost(kind)]
    something = [drawn[TITLES[point.method]]["x"][0] for point in POINTS if point.cost(kind)]
    assert len(set(nothing)) == 1
    assert max(nothing) < min(something)
    axis = drawn["layout"]["xaxis"]
    unit = {"seconds": " s", "memory_bytes": " MB", "examples": "1,024"}[kind]
    assert any(text.endswith(unit) for text in axis["ticktext"])
    assert axis["ticktext"][axis["tickvals"].index(nothing[0])] == "0"
    assert axis["range"][0] < min(nothing)
    assert axis["range"][1] > max(something)


@pytest.mark.parametrize(
    ("kind", "best"),
    [("seconds", ["isotropic", "fisher", "kfac"]), ("examples", ["isotropic", "kfac"])],
)
def test_the_front_is_drawn_told_and_marked_in_the_table_and_is_of_merges_alone(kind, best):
    picture, drawn = _drawn(kind)
    assert drawn["front"]["y"] == pytest.approx([100 * one.score for one in POINTS if one.method in best])
    assert [row[0] for row in picture.rows if row[5] == "yes"] == [TITLES[method] for method in best]
    assert [row[5] for row in picture.rows if row[6] == 4] == [None, None]
    told = [picture.sentence.index(f"{TITLES[method]} ") for method in best]
    assert told == sorted(told)
    assert "all 4 models are kept: experts (own task) 98.0 %, output ensemble 60.0 %." in picture.sentence
    assert [row[2:5] for row in picture.rows] == [(one.seconds, one.memory_bytes, one.examples) for one in POINTS]


def test_where_one_rule_is_cheapest_and_best_the_sentence_says_so():
    picture, _ = _drawn("examples", [POINTS[1], Tradeoff("ties", 0.6, 0.1, 5, 0, 1)])
    assert picture.sentence.startswith("By Fisher examples one rule is enough: isotropic average 70.0 % (no examples)")
    assert "kept" not in picture.sentence


def test_a_rule_that_costs_as_much_as_a_better_one_is_not_said_to_give_no_more_than_a_cheaper_one():
    picture, _ = _drawn("examples", POINTS[1:4])
    assert "the other one is no better than one that takes no more" in picture.sentence


@pytest.mark.parametrize("points", [POINTS[:1], POINTS[1:2], POINTS[2:4], []], ids=len)
@pytest.mark.parametrize("kind", COSTS)
@pytest.mark.parametrize("width", [1200, 390])
def test_few_points_are_drawn_too(points, kind, width):
    picture, drawn = _drawn(kind, points, width)
    assert all(low < high for low, high in [drawn["layout"]["xaxis"]["range"]])
    assert len(drawn["layout"]["xaxis"]["tickvals"]) == len(drawn["layout"]["xaxis"]["ticktext"])
    assert picture.sentence.endswith(".")


def test_costs_have_their_units():
    told = {kind: [cost_text(value, kind) for value in values] for kind, values in (
        ("seconds", (0, 0.0123, 3.14, 250)), ("memory_bytes", (0, 12, 2_179_000, 999_999, 3e9)), ("examples", (0, 1, 1024))
    )}  # fmt: skip
    assert told == {
        "seconds": ["no time", "0.012 s", "3.1 s", "250 s"],
        "memory_bytes": ["no more memory", "12 B", "2.18 MB", "1 MB", "3 GB"],
        "examples": ["no examples", "1 example", "1,024 examples"],
    }
    assert set(COST_TITLES) == set(COSTS)


def test_the_panel_shows_the_pages_merge_and_says_what_is_missing(four_result):
    recipe = four_result.recipe
    recipe = replace(recipe, evaluation=EvaluationSettings())  # as the page reads it: of all rows
    other = replace(recipe, fisher=replace(recipe.fisher, seed=123))
    values = form_values(recipe, recipe.weights)
    assert "press “Estimate Fisher”" in panel.weighed("seconds", 1200, *form_values(other, recipe.weights))[0]
    STORE.put(recipe, four_result.prepared)
    sentence, figure, numbers = panel.weighed("memory_bytes", 1200, *values)
    assert "By memory" in sentence
    assert figure is not None
    assert "Fisher merge" in numbers
    assert "By time" in panel.weighed("money", 0, *values)[0]
    assert "alert" in panel.weighed("seconds", 1200, *values[:8], "furthest", *values[9:])[0]
    assert "No models" in panel.weighed("seconds", 1200, [], *values[1:])[0]
