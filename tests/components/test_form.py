"""Widgets to recipe and back."""

from dataclasses import replace

import pytest

from components.form import FIRST, ROWS, WIDGETS, Form, model_choices, model_name, model_value, recipe_of
from components.opening import form_updates
from merging.errors import MergingError, RecipeError
from merging.pools import open_pool
from merging.recipe import FisherSettings, ModelEntry, Recipe, preset_recipe
from merging.rules import RuleSettings

POOL = open_pool("digits")
CHOICES = model_choices(POOL)


def _values(updates: list[object]) -> list[object]:
    """What the widgets hold after these updates; a hidden slider keeps what it held."""
    return [update.get("value", 0.25) if isinstance(update, dict) else update for update in updates]


def _there_and_back(recipe: Recipe, tmp_path) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    updates = form_updates(Recipe.load(path), CHOICES)
    return recipe_of(Form.of(*_values(updates)), hosted=False)


@pytest.mark.parametrize("preset", [preset.name for preset in POOL.presets])
def test_every_preset_goes_through_the_form_unchanged(preset, tmp_path):
    recipe = preset_recipe(POOL, preset)
    assert _there_and_back(recipe, tmp_path) == recipe


def test_every_setting_goes_through_the_form_unchanged(tmp_path):
    recipe = preset_recipe(POOL, "four-tasks", device="cpu", heads="keep")
    fisher = FisherSettings(labels="empirical", examples=48, seed=7, floor=1e-6, normalise="none", zero_rule="target")
    evaluation = replace(recipe.evaluation, split="validation")
    recipe = replace(recipe, fisher=fisher, evaluation=evaluation, base=None).with_weights([0.1, 0.9, 0.0, 0.37])
    assert _there_and_back(recipe, tmp_path) == recipe


def test_rules_and_their_settings_go_through_the_form_unchanged(tmp_path):
    settings = RuleSettings(scale=1.2, damping=0.3, shrinkage=0.9, density=0.2, prior=2.0)
    layers = {"layer 0": (0.5, 0.25, 0.25, 0.0), "final": (1.0, 0.1234567891, 1e-9, 0.0)}
    compare = ("isotropic", "ties", "fisher", "ensemble", "experts")
    recipe = preset_recipe(POOL, "four-tasks", rule="kfac", settings=settings, layer_weights=layers, compare=compare)
    assert _there_and_back(recipe, tmp_path) == recipe


def test_a_program_that_knows_no_rules_merges_as_before():
    values = _form().values()
    assert recipe_of(Form.of(*values[: FIRST + ROWS]), hosted=False) == recipe_of(Form.of(*values), hosted=False)
    assert len(values) == WIDGETS


def test_a_task_that_is_written_out_goes_through_the_form_unchanged(tmp_path):
    task = {"data": "/somewhere/data", "text": "a, b => c", "label": "y"}
    models = (ModelEntry("/my models/a", task, 0.5), ModelEntry("/my models/b", "/tasks/b", 0.5))
    recipe = replace(preset_recipe(POOL, "four-tasks"), models=models)
    assert _there_and_back(recipe, tmp_path) == recipe


def test_weights_over_one_are_scaled_to_fit_the_sliders(tmp_path):
    recipe = preset_recipe(POOL, "robust").with_weights([3.0, 1.0])
    assert _there_and_back(recipe, tmp_path).weights == pytest.approx([1.0, 1 / 3], abs=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"settings": RuleSettings(scale=4.0)},
        {"settings": RuleSettings(seed=1)},
        {"fisher": FisherSettings(examples="all")},
        {"fisher": FisherSettings(examples=5000)},
        {"models": preset_recipe(POOL, "four-tasks").models * 3},
    ],
)
def test_what_the_page_cannot_show_is_told_and_not_changed(change, tmp_path):
    with pytest.raises(RecipeError, match="expected"):
        _there_and_back(replace(preset_recipe(POOL, "four-tasks"), **change), tmp_path)


def _form(**changes: object) -> Form:
    values = {
        "models": [value for _, value in CHOICES[:2]],
        "heads": "keep",
        "tasks": [],
        "labels": "exact",
        "examples": 256.0,
        "seed": 0.0,
        "floor": 0.0,
        "normalise": "trace",
        "zero_rule": "mean",
        "device": "auto",
        "split": "test",
        "base": "",
        "weights": (0.5,) * ROWS,
    }
    return Form(**{**values, **changes})


@pytest.mark.parametrize(
    "change",
    [
        {"models": []},
        {"models": None},
        {"models": [CHOICES[0][1]]},
        {"models": [CHOICES[0][1]] * 9},
        {"weights": (0.0,) * ROWS},
        {"weights": (-1.0, 1.0)},
        {"weights": (float("nan"), 1.0)},
        {"weights": (float("inf"), 1.0)},
        {"weights": (None, 1.0)},
        {"examples": 0},
        {"examples": 1.5},
        {"examples": float("nan")},
        {"seed": None},
        {"seed": -1},
        {"floor": "much"},
        {"floor": -1.0},
        {"floor": float("nan")},
        {"normalise": "sum"},
        {"zero_rule": None},
        {"labels": "true"},
        {"heads": "both"},
        {"device": "tpu"},
        {"split": "train"},
        {"rule": "kfca"},
        {"rule": None},
        {"rule": "ties"},  # without a base
        {"beside": ["dare"]},
        {"rule": "slerp", "models": [value for _, value in CHOICES[:3]]},
        {"scale": 1.5},
        {"scale": "much"},
        {"damping": -1},
        {"density": 0},
        {"prior": float("inf")},
        {"layer_weights": "layer 0 0.5, 0.5"},
        {"layer_weights": "layer 0: half, half"},
        {"layer_weights": "layer 0: 0.5"},
        {"layer_weights": ": 1, 1"},
        {"layer_weights": "layer 0: 1, 1, 1, 1\nlayer 0: 1, 0, 0, 0"},
        {"layer_weights": "\n".join(f"layer {index}: 1, 1, 1, 1" for index in range(300))},
    ],
    ids=str,
)
def test_a_bad_value_is_told_with_what_was_expected_and_got(change):
    with pytest.raises(MergingError, match=r"expected .*got "):
        recipe_of(_form(**change), hosted=False)


def test_only_as_many_sliders_count_as_there_are_models():
    recipe = recipe_of(_form(weights=(0.25, 0.75, *[float("nan")] * 6)), hosted=False)
    assert recipe.weights == [0.25, 0.75]


@pytest.mark.parametrize(
    "change",
    [
        {"models": ["/etc => /etc", CHOICES[0][1]]},
        {"models": [model_value("zoo:digits/loop", "/etc"), CHOICES[0][1]]},
        {"models": [model_value("zoo:digits/loop", {"data": "/etc"}), CHOICES[0][1]]},
        {"tasks": ["/etc"]},
        {"base": "/etc"},
    ],
    ids=str,
)
def test_a_hosted_page_opens_no_folder(change):
    recipe_of(_form(**change), hosted=False)
    with pytest.raises(RecipeError, match="expected an embedded checkpoint or task"):
        recipe_of(_form(**change), hosted=True)


def test_short_names_are_the_last_part_of_the_reference():
    assert model_name(model_value("zoo:digits/loop", "zoo:digits/loop")) == "loop"
    assert model_name("/my models/a/ => /tasks/b") == "a"
    assert model_name("owner/name@main => task") == "name"
