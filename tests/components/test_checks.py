"""The checks of a choice of models, as the sidebar shows them."""

from dataclasses import replace

from components.checks import checked, report_html
from components.form import model_choices, model_value
from merging.pools import open_pool
from merging.preflight import preflight
from merging.recipe import ModelEntry
from tests.cases import quick_recipe
from tests.ui.test_client import form

POOL = open_pool("digits")
FOUR = [value for _, value in model_choices(POOL)[:4]]


def test_models_that_fit_are_one_line_that_opens():
    html = checked(*form(models=FOUR))
    assert html.startswith('<details class="studio-notice studio-checks good"><summary>')
    assert "checks passed</summary>" in html
    assert "All 4 are ViTForImageClassification." in html


def test_a_problem_stands_open_and_first():
    recipe = quick_recipe("four-tasks")
    other = ModelEntry("zoo:digits/no-such", "zoo:digits/parity", 1.0)
    html = report_html(preflight(replace(recipe, models=(recipe.models[0], other))))
    assert " open><summary>1 of " in html
    assert html.index("✗") < html.index("✓") if "✓" in html else True
    assert "no-such" in html


def test_names_are_text():
    value = model_value("<img src=x onerror=1>/b", "zoo:digits/parity")
    html = checked(*form(models=[FOUR[0], value]))
    assert "<img" not in html


def test_fewer_than_two_models_have_nothing_to_compare():
    assert checked(*form(models=FOUR[:1])) == ""
    assert checked(*form(models=[])) == ""


def test_a_hub_out_of_reach_is_said_once():
    pool = open_pool("gpt2-glue")
    html = checked(*form(models=[value for _, value in model_choices(pool)]))
    assert html.count("cannot be reached") == 1
    assert "7 checkpoints" in html
    assert "✗" in html
