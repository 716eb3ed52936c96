"""The sidebar in a real browser: presets, models, estimating and stopping, pools of one's own."""

import shutil

import pytest
import yaml
from playwright.sync_api import expect

from merging.zoo import ZOO_FOLDER
from tests.ui.looking import (
    TASKS,
    bar_shapes,
    chart_bars,
    open_page,
    open_tab,
    pick,
    press,
    settled_bars,
    slider,
    wait_for_answers,
)

IMAGE = "<img src=x onerror=window.hacked=1>"
SHOUT = "<b onmouseover=window.hacked=1>loud<i>"


def _few_examples(page, examples: int) -> None:
    """As many Fisher examples, few so that an estimation takes a second; each test has a number of its own."""
    page.get_by_role("button", name="Fisher estimation").click()
    field = page.get_by_role("spinbutton", name="Fisher examples")
    field.fill(str(examples))
    field.press("Tab")
    expect(page.locator("#notice")).to_contain_text("Estimate Fisher")


def _type_pool(page, name: str) -> None:
    box = page.get_by_role("combobox", name="Pool", exact=True)
    box.fill(name)
    box.press("Enter")


def test_another_preset_is_estimated_and_shown(page):
    _few_examples(page, 16)
    pick(page, "Preset", "Robust fine-tuning")
    expect(page.locator("#progress")).to_contain_text("Ready")
    expect(page.locator("#score-chart .xtick text")).to_have_text(
        ["digit", "rotated", "inverted", "noisy", "blurred", "mean"]
    )
    assert page.locator("#score-chart .legendtext").all_text_contents()[:2] == ["robust", "narrow"]
    expect(slider(page, "robust")).to_be_visible()
    expect(slider(page, "narrow")).to_be_visible()
    expect(slider(page, "loop")).to_have_count(0)
    expect(page.locator("#shares")).to_contain_text("robust 50.0 %")
    open_tab(page, "Inspect")
    expect(page.locator("#fisher-heatmap .heatmaplayer .hm")).to_have_count(2)


def test_other_fisher_settings_wait_for_estimate_and_then_show(page):
    _few_examples(page, 32)
    expect(chart_bars(page)).to_have_count(0)  # numbers of other Fishers would be wrong here
    press(page, "Estimate Fisher")
    expect(page.locator("#progress")).to_contain_text("Ready")
    expect(chart_bars(page).first).to_be_visible()
    expect(page.locator("#notice .studio-notice")).to_have_count(0)


def test_a_model_less_gives_a_slider_less_and_one_model_is_told(page):
    chosen = page.get_by_label("Models", exact=True).locator("xpath=ancestor::div[contains(@class, 'block')][1]")
    remove = chosen.get_by_role("button", name="Remove").or_(chosen.locator(".token-remove:not(.remove-all)"))
    remove.last.click()
    expect(slider(page, TASKS[-1])).to_have_count(0)
    expect(page.locator("#shares")).to_contain_text("parity 33.3 %")
    press(page, "Estimate Fisher")  # each Fisher is cached
    expect(page.locator("#score-chart .xtick text")).to_have_text([*TASKS[:-1], "mean"])
    for left in (2, 1):
        remove.last.click()
        expect(page.locator(".studio-sliders input[type=range]:visible")).to_have_count(left)
    expect(page.locator("#notice [role=alert]")).to_contain_text("expected two or more models, got 1")


def test_merging_heads_of_different_labels_is_told(page):
    page.get_by_label("merge too", exact=True).check()
    press(page, "Estimate Fisher")
    expect(page.locator("#progress [role=alert]")).to_contain_text("expected models with equal label sets")
    expect(page.get_by_role("button", name="Estimate Fisher", exact=True)).to_be_enabled()


def test_an_estimation_survives_a_reload_and_stops_when_asked(page, server):
    stop = page.get_by_role("button", name="Stop", exact=True)
    expect(stop).to_be_disabled()
    # Other Fishers than a lesson may have estimated on this server.
    _few_examples(page, 2048)  # all there are: it must still go on after the reload
    page.get_by_label("Seed", exact=True).fill("3")
    pick(page, "Preset", "Five seeds of one task")
    expect(stop).to_be_enabled()
    progress = page.locator("#progress")
    expect(progress.get_by_role("progressbar")).to_be_visible()
    expect(progress).to_contain_text("Fisher of seed-")
    open_page(page, server.url)  # the reload
    expect(progress).to_contain_text("Fisher of seed-")
    expect(stop).to_be_enabled()
    stop.click()
    expect(progress).to_contain_text("Stopped")
    expect(stop).to_be_disabled()
    expect(page.get_by_role("button", name="Estimate Fisher", exact=True)).to_be_enabled()
    assert chart_bars(page).count() > 0


@pytest.mark.parametrize(("typed", "told"), [("nowhere", "got no folder"), ("digitz", 'Did you mean "digits"?')])
def test_an_unknown_pool_is_told_and_changes_nothing(page, typed, told):
    before = settled_bars(page)
    _type_pool(page, typed)
    alert = page.locator("#notice [role=alert]")
    expect(alert).to_contain_text(f'There is no pool "{typed}": expected')
    expect(alert).to_contain_text(told)
    wait_for_answers(page)
    expect(alert).to_contain_text(told)
    assert bar_shapes(page) == before
    expect(slider(page, "parity")).to_be_visible()


def test_hostile_names_of_a_pool_are_text(page, hostile_pool):
    _few_examples(page, 48)
    _type_pool(page, str(hostile_pool))
    expect(page.locator("#progress")).to_contain_text("Ready")
    expect(page.locator("#score-chart .xtick text").first).to_be_visible()
    assert page.locator("#score-chart .xtick text").all_text_contents() == [SHOUT, "plain", "mean"]
    expect(page.locator("#score-table")).to_contain_text(SHOUT)
    expect(page.locator("#shares")).to_contain_text(IMAGE)
    expect(slider(page, IMAGE)).to_be_visible()
    open_tab(page, "Inspect")
    expect(page.locator("#fisher-facts-numbers")).to_contain_text(IMAGE)
    assert IMAGE in page.locator("#owner-map .legendtext").all_text_contents()
    assert IMAGE in page.locator("#fisher-heatmap .annotation-text").all_text_contents()
    page.locator("#owner-map .heatmaplayer").hover(force=True)
    open_tab(page, "Export")
    expect(page.locator(".cm-content").first).to_contain_text(IMAGE)
    assert page.locator("img[src=x], [onmouseover], [onerror], [onload]").count() == 0
    assert page.evaluate("window.hacked") is None


def test_a_truncated_checkpoint_is_told(page, hostile_pool):
    weights = hostile_pool / "checkpoints" / "plain" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    _type_pool(page, str(hostile_pool))
    alert = page.locator("#progress [role=alert]")
    expect(alert).to_contain_text("expected")
    expect(alert).to_contain_text("plain")
    expect(page.get_by_role("button", name="Estimate Fisher", exact=True)).to_be_enabled()


@pytest.fixture
def hostile_pool(tmp_path):
    """Two models of the embedded pool under names that are HTML."""
    pool, source = tmp_path / "pool", ZOO_FOLDER / "digits"
    names = {"parity": (IMAGE, SHOUT), "loop": ("plain", "plain")}
    for old, (checkpoint, task) in names.items():
        shutil.copytree(source / "checkpoints" / old, pool / "checkpoints" / checkpoint)
        shutil.copytree(source / "tasks" / old, pool / "tasks" / task)
    for entry in source.iterdir():
        if entry.is_dir() and entry.name not in ("checkpoints", "tasks"):
            shutil.copytree(entry, pool / entry.name)
        elif entry.is_file() and entry.name != "pool.yaml":
            shutil.copy(entry, pool / entry.name)
    content = {
        "name": IMAGE,
        "description": "<svg onload=window.hacked=1></svg> a pool",
        "models": [{"name": name, "task": task, "title": f"{SHOUT} title"} for name, task in names.values()],
        "presets": [{"name": "both", "title": SHOUT, "models": [name for name, _ in names.values()]}],
    }
    (pool / "pool.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    return pool


def test_models_of_ones_own_are_looked_at_added_and_merged(page):
    checkpoints = ZOO_FOLDER / "digits" / "checkpoints"
    pick(page, "Pool", "own models")
    expect(page.locator("#notice")).to_contain_text("No models yet")
    expect(slider(page, "parity")).to_have_count(0)
    for name in ("parity", "loop"):
        page.get_by_label("Checkpoint", exact=True).fill(str(checkpoints / name))
        page.get_by_label("Its dataset", exact=True).fill(f"zoo:digits/{name}")
        press(page, "Look")
        expect(page.locator("#task-summary")).to_contain_text("fisher 600, validation 250, test 347")
        press(page, "Add")
        expect(page.locator("#task-summary")).to_contain_text(f"{name} is added")
        expect(slider(page, name)).to_be_visible()
    press(page, "Estimate Fisher")
    expect(page.locator("#progress")).to_contain_text("Ready")
    expect(page.locator("#score-chart .xtick text")).to_have_text(["parity", "loop", "mean"])


def test_a_preset_of_the_hub_downloads_nothing_unasked_and_says_that_there_is_no_network(page):
    pick(page, "Pool", "gpt2-glue (Hub)")
    expect(page.locator("#progress")).to_contain_text("lies on the Hugging Face Hub")
    expect(slider(page, "gpt2_cola")).to_be_visible()
    press(page, "Estimate Fisher")
    expect(page.locator("#progress [role=alert]")).to_contain_text("offline")
