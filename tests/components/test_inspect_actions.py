"""The Inspect tab's answers to the page: states without Fishers, hostile picks, what is kept."""

from dataclasses import replace

import pytest

from components import inspect_actions as actions
from components import inspect_jobs as jobs
from components.form import Form, recipe_of
from components.inspect import MAPS, MATRIX, PLANE, TITLES
from components.inspect_results import FOUND, KEPT, chosen_of, computed
from components.jobs import REGISTRY
from components.store import STORE, preparation_key
from merging.diagnostics import fisher_map

WIDTH = 1200.0
TASKS = ("parity", "large", "loop", "remainder")


def form(*, names=TASKS, seed=0, weights=(0.25,) * 8):
    """The page's form for some of the pool's models."""
    models = [f"zoo:digits/{name} => zoo:digits/{name}" for name in names]
    settings = ["keep", [], "exact", 16, seed, 0.0, "trace", "mean", "cpu", "test", "zoo:digits/base"]
    return [models, *settings, *weights]


@pytest.fixture(autouse=True)
def prepared(four_result):
    """The four tasks, prepared for this form."""
    STORE.put(recipe_of(Form.of(*form()), hosted=False), four_result.prepared)
    return four_result.prepared


def fitting(section):
    """How many widgets a section fills."""
    return actions.SIZES[section]


@pytest.mark.parametrize("section", TITLES)
def test_every_section_fills_all_its_widgets_in_every_state(section):
    states = {
        "": form(),
        "press “Estimate Fisher”": form(seed=77),
        "expected two or more models, got 1": form(names=TASKS[:1]),
    }
    for told, values in states.items():
        message, *filled = actions.drawn(section, {}, WIDTH, values)
        assert len(filled) == fitting(section)
        assert (told in message) if told else message == ""


def test_the_tab_draws_only_the_section_that_is_open():
    answer = actions.inspected({"section": "mixing"}, WIDTH, *form())
    assert len(answer) == 1 + sum(map(fitting, TITLES))
    figures = [value for value in answer if hasattr(value, "data")]
    assert len(figures) == 2  # histograms and percentiles
    first = [value for value in actions.inspected({}, WIDTH, *form()) if hasattr(value, "data")]
    assert len(first) == 3  # heatmaps, owner map, difference


@pytest.mark.parametrize(
    "value", ["", "-1", "9999999", "99999999999999999999", "²", "1; drop", "<img src=x>", None, "0"]
)
def test_a_place_that_is_none_is_told(value):
    sentence, figure, numbers = actions.cell_opened(value, *form())
    assert 'role="alert"' in sentence
    assert "<img" not in sentence
    assert (figure, numbers) == (None, "")


def test_a_place_opens_its_tensors(prepared):
    fisher = fisher_map(prepared, recipe_of(Form.of(*form()), hosted=False))
    for row, cells in enumerate(fisher.tensors):
        for column, tensors in enumerate(cells):
            if tensors:
                _, _, numbers = actions.cell_opened(str(row * len(fisher.kinds) + column), *form())
                assert numbers.count("<tr>") == 1 + 4 * len(tensors)


def test_the_same_numbers_are_computed_once(prepared):
    made = []
    for _ in range(3):
        computed(prepared, ("test", 0), lambda: made.append(0) or "made")
    assert len(made) == 1
    for number in range(2 * KEPT):
        computed(prepared, ("test", number), lambda: "made")
    assert len(FOUND[prepared]) == KEPT


def test_a_choice_that_is_no_more_gives_way_to_the_first_models():
    assert chosen_of(["b", "c"], ["a", "b", "c"], 2) == ["b", "c"]
    assert chosen_of(["b", "gone"], ["a", "b", "c"], 2) == ["a", "b"]
    assert chosen_of(None, ["a"], 2) == ["a", "a"]


def test_two_models_and_the_base_are_a_planes_corners(prepared):
    view, *answer = jobs.plane_begun({}, WIDTH, "parity", "large", "base", *form())
    job = REGISTRY.get(next(value for value in answer if isinstance(value, str) and len(value) == 32))
    assert job.ended.wait(60)
    assert [point.name for point in job.result.corners] == ["parity", "large", "base"]
    # Opened again, it is there at once.
    *_, sentence, figure, _ = actions.drawn(PLANE, view, WIDTH, form())
    assert "parity, large, base" in sentence
    assert figure is not None


def test_the_table_is_filled_when_its_section_is_opened():
    answer = actions.drawn(MATRIX, {}, WIDTH, form(weights=[0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0]))
    ids = [value for value in answer if isinstance(value, str) and len(value) == 32]
    if ids:
        assert REGISTRY.get(ids[0]).ended.wait(60)
        answer = actions.drawn(MATRIX, {}, WIDTH, form(weights=[0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0]))
    assert "Over all tasks the Fisher merge reaches" in answer[-3]


def test_the_first_section_is_the_one_of_the_maps():
    assert next(iter(TITLES)) == MAPS


@pytest.mark.parametrize("section", TITLES)
def test_rules_that_take_no_fisher_leave_nothing_to_look_at(section, prepared, monkeypatch):
    values = [*form(), "isotropic", []]
    recipe = recipe_of(Form.of(*values), hosted=False)
    STORE.put(recipe, replace(prepared, fishers=[]))
    monkeypatch.setattr(STORE, "_key", lambda recipe: preparation_key(recipe))  # else a larger estimate serves
    answer = actions.opened(section, {}, WIDTH, *values)
    assert "choose “Fisher merge” as the rule" in answer[1]
    assert len(answer) == fitting(section) + 2
