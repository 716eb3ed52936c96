"""The Export tab in a real browser: what comes down is what was merged."""

import zipfile
from dataclasses import replace

import numpy
import pytest
import torch
from playwright.sync_api import expect

import merging
from merging.evaluation import predict
from merging.recipe import ModelEntry, Recipe
from tests.cases import quick_recipe
from tests.ui.looking import TASKS, open_tab, press, set_slider, settle, settled_bars, slider


def _downloaded(page, button: str, folder):
    with page.expect_download() as download:
        press(page, button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def _open(page, path) -> None:
    with page.expect_file_chooser() as chooser:
        press(page, "Open a recipe")
    chooser.value.set_files(path)


@pytest.fixture
def export_tab(page):
    """The Export tab of a merge in which parity weighs twice as much as the others."""
    set_slider(page, "parity", 0.5)
    expect(page.locator("#shares")).to_contain_text("parity 40.0 %")
    open_tab(page, "Export")
    expect(page.locator(".cm-line", has_text="weight: 0.5")).to_be_visible()
    return page


def test_it_shows_the_recipe_and_the_command(export_tab):
    shown = "\n".join(export_tab.locator(".cm-content").first.locator(".cm-line").all_inner_texts())
    recipe = Recipe.from_yaml(shown)
    assert recipe.weights == [0.5, 0.25, 0.25, 0.25]
    expect(export_tab.get_by_text("python -m merging run recipe.yaml --output merged")).to_be_visible()


def test_the_downloaded_model_is_the_recipes_merge_bit_for_bit(export_tab, tmp_path):
    from transformers import AutoModel, AutoModelForImageClassification

    archive = _downloaded(export_tab, "Download merged model", tmp_path)
    assert archive.suffix == ".zip"
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "out")
    folder = tmp_path / "out" / "merged"
    result = merging.run(Recipe.load(folder / "recipe.yaml"))
    assert result.recipe.weights == [0.5, 0.25, 0.25, 0.25]

    body = dict(AutoModel.from_pretrained(folder).named_parameters())
    prefix = next(iter(result.merged)).split(".")[0] + "."
    shared = {name.removeprefix(prefix): tensor for name, tensor in result.merged.items()}
    assert all(torch.equal(body[name], tensor.cpu()) for name, tensor in shared.items())

    for task, batches in zip(TASKS, result.prepared.batches("test"), strict=True):
        model = AutoModelForImageClassification.from_pretrained(folder, subfolder=task).eval()
        parameters = dict(model.named_parameters())
        assert all(torch.equal(parameters[name], tensor.cpu()) for name, tensor in result.merged.items())
        own = predict([model.to(result.prepared.device)], [batches])[0]
        assert numpy.array_equal(own.correct, result.predictions["fisher"][task].correct), task


def test_the_downloaded_recipe_is_the_pages(export_tab, tmp_path):
    path = _downloaded(export_tab, "Download recipe", tmp_path)
    assert path.suffix == ".yaml"
    recipe = Recipe.load(path)
    assert recipe.weights == [0.5, 0.25, 0.25, 0.25]
    assert [entry.checkpoint for entry in recipe.models] == [f"zoo:digits/{task}" for task in TASKS]


def test_opening_a_recipe_sets_models_sliders_and_settings(page, tmp_path):
    recipe = quick_recipe("four-tasks", device="auto")
    models = (replace(recipe.models[2], weight=3.0), replace(recipe.models[0], weight=1.0))
    fisher = replace(recipe.fisher, normalise="l2", zero_rule="target", seed=5)
    evaluation = replace(recipe.evaluation, split="validation")
    path = tmp_path / "mine.yaml"
    path.write_text(replace(recipe, models=models, fisher=fisher, evaluation=evaluation).to_yaml(), encoding="utf-8")
    open_tab(page, "Export")
    _open(page, path)
    expect(page.locator("#export-notice [role=status]")).to_contain_text("The recipe is open")
    expect(page.locator("#progress")).to_contain_text("Ready")
    open_tab(page, "Merge")
    expect(page.locator("#score-chart .xtick text")).to_have_text(["loop", "parity", "mean"])
    expect(page.locator("#shares")).to_contain_text("loop 75.0 %")
    expect(slider(page, "loop")).to_be_visible()
    expect(slider(page, "remainder")).to_have_count(0)
    for chosen in ("validation", "l2", "target"):
        expect(page.get_by_label(chosen, exact=True)).to_be_checked()
    expect(page.locator("#score-table caption")).to_contain_text("validation split")


def test_a_recipe_goes_out_and_comes_in_again_unchanged(export_tab, tmp_path):
    path = _downloaded(export_tab, "Download recipe", tmp_path)
    open_tab(export_tab, "Merge")
    press(export_tab, "Equal λ")
    expect(export_tab.locator("#shares")).to_contain_text("parity 25.0 %")
    open_tab(export_tab, "Export")
    _open(export_tab, path)
    expect(export_tab.locator("#export-notice [role=status]")).to_contain_text("The recipe is open")
    expect(export_tab.locator(".cm-line", has_text="weight: 0.5")).to_be_visible()
    (tmp_path / "again").mkdir()
    again = _downloaded(export_tab, "Download recipe", tmp_path / "again")
    assert again.read_text("utf-8") == path.read_text("utf-8")


WRONG = {
    "no YAML": ("models: [", "expected YAML"),
    "no recipe": ("- 1", "expected fields and values"),
    "unknown rule": ("models:\n- {checkpoint: a, task: b}\n- {checkpoint: c, task: d}\nrule: fischer", '"fisher"?'),
    "one model": ("models:\n- {checkpoint: a, task: b}\n", "expected two or more models, got 1"),
    "weights of zero": (
        "models:\n- {checkpoint: a, task: b, weight: 0}\n- {checkpoint: c, task: d, weight: 0}\n",
        "expected",
    ),
    "all examples": (
        replace(
            quick_recipe("four-tasks"), fisher=replace(quick_recipe("four-tasks").fisher, examples="all")
        ).to_yaml(),
        "Use the command line",
    ),
    "nine models": (
        replace(quick_recipe("four-tasks"), models=(ModelEntry("zoo:digits/loop", "zoo:digits/loop"),) * 9).to_yaml(),
        "at most 8",
    ),
}


def test_a_wrong_recipe_is_told_and_changes_nothing(export_tab, tmp_path):
    open_tab(export_tab, "Merge")  # what is drawn behind another tab is made to fit when it is seen
    before = settled_bars(export_tab)
    open_tab(export_tab, "Export")
    for number, (name, (text, told)) in enumerate(WRONG.items()):
        path = tmp_path / f"wrong-{number}.yaml"
        path.write_text(text, encoding="utf-8")
        _open(export_tab, path)
        expect(export_tab.locator("#export-notice [role=alert]"), name).to_contain_text(told)
        settle(export_tab)  # the events that follow must not wipe the message out
        expect(export_tab.locator("#export-notice [role=alert]"), name).to_contain_text(told)
        expect(export_tab.locator(".cm-line", has_text="weight: 0.5")).to_be_visible()
    open_tab(export_tab, "Merge")
    expect(slider(export_tab, "parity")).to_have_value("0.5")
    assert settled_bars(export_tab) == before


def test_a_push_without_a_network_is_told_and_the_token_is_gone(page):
    open_tab(page, "Export")
    page.get_by_role("button", name="Push to the Hugging Face Hub").click()
    page.get_by_label("Repository", exact=True).fill("no owner")
    page.get_by_label("Token").fill("hf_secret")
    press(page, "Push to Hub")
    alert = page.locator("#push-notice [role=alert]")
    expect(alert).to_contain_text("is no name for a repository: expected ORG/NAME")
    expect(page.get_by_label("Token")).to_have_value("")
    page.get_by_label("Repository", exact=True).fill("someone/merged")
    page.get_by_label("Token").fill("hf_secret")
    press(page, "Push to Hub")
    expect(alert).to_contain_text("someone/merged")
    assert "hf_secret" not in page.content()
