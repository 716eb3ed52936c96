"""Pictures of what weights give, from numbers whose pictures are known."""

import json
from collections.abc import Sequence

import numpy
import pytest

from components.explore_figures import BANDED, Explored, curve_picture, parsed, sentence, tasks_picture
from components.explore_maps import BEST_LINES, lines_picture, map_picture, search_picture
from components.explore_texts import best_html
from components.style import TITLES
from merging.metrics import accuracy
from merging.search import RULES, Trial, lattice, map_points, mean_over_tasks
from merging.search.points import draws

NAMES = ("a <b>", "b", "c", "d")
TASKS = ("one", "two <i>")
ROWS = 100


def trial(rule: str, weights: tuple[float, ...], gain: float = 0.0) -> Trial:
    """The first task is right on 100 λ₁ of 100 rows, the second on 100 (1 − λ₁), and both on 100 `gain` more."""
    right = [round(ROWS * (weights[0] + gain)), round(ROWS * (1 - weights[0] + gain))]
    correct = [numpy.arange(ROWS) < count for count in right]
    scores = dict(zip(TASKS, map(accuracy, correct), strict=True))
    return Trial(rule, weights, scores, mean_over_tasks([correct]))


def explored(count: int, objective: str = "mean", gain: float = 0.1, rules: Sequence[str] = RULES) -> Explored:
    """All points of a picture; with `gain` the page's rule, the first, is ahead, with less it is behind."""
    points = map_points(count) or [*lattice(count, 2), *draws(count, 20, seed=0)]
    gains = {rule: gain if rule == rules[0] else 0.0 for rule in rules}
    return Explored(
        names=NAMES[:count],
        tasks=TASKS,
        trials={rule: [trial(rule, weights, gains[rule]) for weights in points] for rule in rules},
        ensemble=trial("ensemble", (0.5, *[0.5 / (count - 1)] * (count - 1))),
        objective=objective,
        split="validation",
        here=[1 / count] * count,
    )


def _traces(picture, **wanted: object) -> list[dict]:
    drawn = json.loads(picture.figure.to_json())["data"]
    return [one for one in drawn if all(one.get(name) == value for name, value in wanted.items())]


PICTURES = {
    "curve": lambda: curve_picture(explored(2), 1280),
    "tasks": lambda: tasks_picture(explored(2), 1280),
    "maps": lambda: map_picture(explored(3), 1280),
    "maps on a phone": lambda: map_picture(explored(3), 390),
    "lines": lambda: lines_picture(explored(4)),
    "way": lambda: search_picture(explored(4)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_has_a_sentence_numbers_and_no_markup_of_its_models(name):
    picture = PICTURES[name]()
    assert picture.sentence.endswith(".")
    assert picture.columns
    assert {len(row) for row in picture.rows} == {len(picture.columns)}
    assert picture.picks is None or len(picture.picks) == len(picture.rows)
    drawn = json.loads(picture.figure.to_json())
    texts = [one["text"] for one in drawn["layout"].get("annotations", [])] + [
        str(one.get("name")) for one in drawn["data"]
    ]
    texts += [str(axis.get("title")) for key, axis in drawn["layout"].items() if "axis" in key]
    texts += [place for one in drawn["data"] for place in one.get("x", []) if isinstance(place, str)]
    assert not [text for text in texts if "a <b>" in text or "<i>" in text]
    assert len(picture.figure.to_json()) < 300_000


def test_the_curve_holds_every_point_its_band_the_ensemble_and_a_click_on_it_is_its_weights():
    picture = curve_picture(explored(2), 1280)
    fisher = next(one for one in _traces(picture, name="Fisher merge"))
    assert fisher["x"] == pytest.approx([index / 50 for index in range(51)])
    assert fisher["y"] == pytest.approx([min(60, 55 + index, 55 + 50 - index) for index in range(51)])
    for x, data in zip(fisher["x"], fisher["customdata"], strict=True):
        assert parsed(data[0], 2) == pytest.approx([x, 1 - x])
    bands = _traces(picture, fill="toself")
    assert len(bands) == 2
    top, bottom = bands[1]["y"][:51], bands[1]["y"][:50:-1]
    assert all(low <= value <= high for low, value, high in zip(bottom, fisher["y"], top, strict=True))
    level = next(one for one in _traces(picture, mode="lines") if one.get("name", "").startswith("output ensemble"))
    assert level["y"] == pytest.approx([50, 50])
    assert [row[:2] for row in picture.rows] == [list(weights) for weights in map_points(2)]


@pytest.mark.parametrize(("gain", "told"), [(0.1, "points above"), (0.0, "the same as"), (-0.1, "points below")])
def test_the_sentence_tells_where_fisher_merging_wins_and_where_it_loses(gain, told):
    assert told in sentence(explored(2, gain=gain))


def test_every_rule_has_a_curve_of_its_own_and_is_named():
    shown = explored(2, rules=("kfac", "isotropic", "ties", "regmean"))
    picture = curve_picture(shown, 1280)
    names = ["K-FAC Fisher", "isotropic average", "TIES", "RegMean"]
    lines = [one for one in _traces(picture, mode="lines+markers") if one["name"] in names]
    assert sorted(one["name"] for one in lines) == sorted(names)
    assert len({(one["line"]["color"], one["line"]["dash"], one["marker"]["symbol"]) for one in lines}) == 4
    assert len(_traces(picture, fill="toself")) == BANDED
    assert [one["name"] for one in _traces(picture, hoverinfo="skip", mode="markers")] == ["best K-FAC Fisher"]
    assert [column for column in picture.columns if column in names] == names
    assert "the K-FAC Fisher is best at" in picture.sentence
    assert "Of the rules beside it TIES comes highest, 50.0 %" in picture.sentence
    assert "Fisher merge" not in picture.sentence
    assert {row[0] for row in tasks_picture(shown, 1280).rows} == set(names)


@pytest.mark.parametrize("width", [1280, 390])
def test_maps_and_the_search_are_of_the_pages_rule_and_isotropic_averaging_or_of_that_alone(width):
    for rules in (("kfac", "isotropic"), ("isotropic",)):
        titles = [TITLES[rule] for rule in rules]
        drawn = json.loads(map_picture(explored(3, rules=rules), width).figure.to_json())
        assert [one["text"].partition(", at best")[0] for one in drawn["layout"]["annotations"]] == titles
        assert [one["name"] for one in _traces(lines_picture(explored(4, rules=rules)), opacity=1)] == [
            f"best {titles[0]}"
        ]
        assert list(dict.fromkeys(row[0] for row in search_picture(explored(4, rules=rules)).rows)) == titles[::-1]


def test_the_worst_task_and_one_task_have_curves_of_their_own():
    worst = _traces(curve_picture(explored(2, "worst", gain=0), 1280), name="Fisher merge")[0]["y"]
    assert worst == pytest.approx([100 * min(index, 50 - index) / 50 for index in range(51)])
    one = _traces(curve_picture(explored(2, "task:one", gain=0), 1280), name="Fisher merge")[0]["y"]
    assert one == pytest.approx([2 * index for index in range(51)])


def test_both_maps_have_every_tile_on_one_scale():
    picture = map_picture(explored(3), 1280)
    tiles = [one for one in _traces(picture, type="scatterternary") if one["marker"].get("symbol") == "hexagon"]
    assert [len(one["a"]) for one in tiles] == [66, 66]
    assert {one["marker"]["coloraxis"] for one in tiles} == {"coloraxis"}
    for a, b, c, data in zip(*[tiles[0][letter] for letter in "abc"], tiles[0]["customdata"], strict=True):
        assert parsed(data[0], 3) == pytest.approx([a, b, c])
    colours = dict(zip(zip(tiles[0]["a"], tiles[0]["b"], strict=True), tiles[0]["marker"]["color"], strict=True))
    assert colours[0.0, 0.0] == pytest.approx(55)  # of the second task all, of the first a tenth
    assert colours[0.5, 0.5] == pytest.approx(60)


def test_the_best_lines_are_the_best_and_the_first_of_the_table():
    shown = explored(4)
    picture = lines_picture(shown)
    lines = [one for one in _traces(picture, mode="lines+markers") if one["name"] != "sliders"]
    assert len(lines) == BEST_LINES
    best = shown.best("fisher")
    assert lines[-1]["y"] == pytest.approx(best.weights)
    assert parsed(picture.picks[0], 4) == pytest.approx(best.weights)
    scores = [row[1] for row in picture.rows if row[0] == "Fisher merge"]
    assert scores == sorted(scores, reverse=True)


def test_the_best_so_far_never_falls_and_ends_at_the_best():
    shown = explored(4)
    rows = [row for row in search_picture(shown).rows if row[0] == "Fisher merge"]
    best = [row[3] for row in rows]
    assert best == sorted(best)
    assert best[-1] == 100 * shown.best("fisher").mean.value == max(row[2] for row in rows)


def test_names_are_escaped_in_the_table_of_the_best():
    shown = explored(2)
    best, told = shown.best("fisher"), best_html([], (shown.ensemble,) * 2, objective="mean", names=NAMES[:2], count=51)
    assert "Chosen on validation, reported on test" in told
    told = best_html([(best, best)], (shown.ensemble,) * 2, objective="task:two <i>", names=NAMES[:2], count=51)
    assert "a &lt;b&gt; " in told
    assert "two &lt;i&gt;" in told
    assert "<b>" not in told
    assert "<i>" not in told
