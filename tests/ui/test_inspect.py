"""The Inspect tab in a real browser: every picture is drawn, reacts, and shows merging's own numbers."""

import re

import pytest
from playwright.sync_api import expect

import merging
from components.job_panel import first_recipe
from merging.diagnostics import (
    distances_moved,
    fisher_map,
    fisher_percentiles,
    mixing_histogram,
    similarity,
    task_matrix,
    tensor_facts,
)
from merging.diagnostics.planes import mean_loss
from tests.ui.accessible import serious_in_both_modes
from tests.ui.looking import TASKS, open_page, open_tab, press, set_slider, settle
from tests.ui.test_looks import MODES, PHONE

SECTIONS = {
    "Fisher maps": "#owner-map .heatmaplayer .hm",
    "Every task": "#task-matrix .heatmaplayer .hm",
    "Mixing weights": "#mixing .scatterlayer .trace",
    "Similar tasks": "#task2vec .heatmaplayer .hm",
    "Distance moved": "#moved-base .scatterlayer .trace",
    "Loss plane": "#loss-plane-sentence :is(.studio-notice, .studio-sentence)",
}


@pytest.fixture(scope="module")
def own():
    """What merging itself gives for the merge that the page opens on. Not to be changed."""
    return merging.run(first_recipe())


def open_section(page, name: str) -> None:
    """Goes to a section, on a phone by the menu of those that have no room, and waits until it is filled."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if tab.is_visible():
        tab.click()
    else:
        page.locator(".overflow-menu:visible > button").last.click()
        page.locator(".overflow-dropdown button", has_text=name).last.click()
    expect(page.locator(SECTIONS[name]).first).to_be_visible()
    settle(page)


def numbers(page, frame: str) -> list[list[str]]:
    """The rows of a frame's table, every digit of them, without the buttons."""
    return page.locator(f"#{frame}-numbers tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].filter(cell => !cell.classList.contains('pick')).map(c => c.dataset.value))"
    )


def test_a_click_on_a_place_lists_its_tensors(page, own):
    open_tab(page, "Inspect")
    panel = page.locator("#fisher-heatmap .heatmaplayer .hm image").nth(1)
    expect(panel).to_be_visible()
    page.wait_for_function("document.querySelector('#fisher-heatmap .js-plotly-plot').data.every(trace => trace.text)")
    settle(page)
    fisher = fisher_map(own.prepared, own.recipe)
    box = panel.bounding_box()
    # The second of the layers, the first of the kinds.
    place = (box["x"] + 0.5 * box["width"] / len(fisher.kinds), box["y"] + 1.5 * box["height"] / len(fisher.layers))
    page.mouse.move(*place)
    hover = page.locator("#fisher-heatmap .hovertext")
    expect(hover).to_contain_text(fisher.tensors[1][0][0])
    expect(hover).to_contain_text("64 × 64")
    expect(hover).to_contain_text("large")
    page.mouse.click(*place)
    expect(page.locator("#cell-tensors-sentence")).to_have_text("Layer 0, q: 2 tensors.")
    rows = numbers(page, "cell-tensors")
    facts = tensor_facts(own.prepared, own.recipe, fisher.tensors[1][0])
    assert [(row[0], row[2]) for row in rows] == [(one.name, one.model) for one in facts]
    for row, one in zip(rows, facts, strict=True):
        assert [float(value) for value in row[3:]] == pytest.approx(
            [one.mean, one.largest, 100 * one.zeros, 100 * one.share], rel=1e-5
        )


def test_a_place_of_the_owner_map_opens_by_keyboard(page):
    open_tab(page, "Inspect")
    expect(page.locator("#owner-map .heatmaplayer .hm")).to_be_visible()
    settle(page)
    table = page.locator("#owner-map-numbers")
    table.locator("summary").focus()
    page.keyboard.press("Enter")
    table.get_by_role("button", name="Open tensors").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#cell-tensors-sentence")).to_contain_text("tensor")
    expect(page.locator("#cell-tensors-numbers tbody tr").first).to_be_visible()


def test_heatmap_and_owner_map_have_mergings_own_numbers(page, own):
    set_slider(page, "parity", 1)
    expect(page.locator("#shares")).to_contain_text("parity 57.1 %")
    open_tab(page, "Inspect")
    expect(page.locator("#owner-map-sentence")).to_contain_text("57.1 %")
    fisher = fisher_map(own.prepared, own.recipe.with_weights([1, 0.25, 0.25, 0.25]))
    rows = numbers(page, "owner-map")
    assert len(rows) == sum(bool(cell) for row in fisher.tensors for cell in row)
    for row in rows:
        place = fisher.layers.index(row[0]), fisher.kinds.index(row[1])
        shares = [float(value) for value in row[3:]]
        assert shares == pytest.approx(100 * fisher.share[(slice(None), *place)], abs=1e-3)


def test_two_models_are_chosen_and_compared(page):
    open_tab(page, "Inspect")
    sentence = page.locator("#fisher-difference-sentence")
    expect(sentence).to_contain_text("parity is surer than large")
    page.get_by_role("combobox", name="compared with that of").click()
    page.get_by_role("option", name="loop").click()
    expect(sentence).to_contain_text("parity is surer than loop")
    expect(page.locator("#fisher-difference .heatmaplayer .hm")).to_be_visible()
    page.get_by_role("combobox", name="compared with that of").click()
    page.get_by_role("option", name="parity").click()
    expect(sentence).to_contain_text("Choose two different models")


def test_every_model_on_every_task_is_filled_and_equal_to_mergings_own(page, own):
    open_tab(page, "Inspect")
    open_section(page, "Every task")
    found = task_matrix(own.prepared, own.recipe)
    rows = numbers(page, "task-matrix")
    assert [row[0] for row in rows] == [*TASKS, "base", "isotropic average", "Fisher merge", "output ensemble"]
    for row, cells, place in zip(rows, found.cells, range(len(rows)), strict=True):
        values = [float(value) for value in row[1:-1:2]]
        assert values == pytest.approx([100 * cell.score.value for cell in cells.values()])
        assert float(row[-1]) == pytest.approx(100 * found.mean(place))
    assert [row[2 * place + 2] for place, row in enumerate(rows[:4])] == ["●"] * 4
    assert rows[4][2::2] == ["†"] * 4


def test_mixing_weights_follow_the_sliders(page, own):
    open_tab(page, "Inspect")
    open_section(page, "Mixing weights")
    sentence = page.locator("#mixing-sentence")
    expect(sentence).to_contain_text("The sliders are equal now")
    sizes = fisher_percentiles(own.prepared, own.recipe)
    for row, values in zip(numbers(page, "fisher-percentiles"), sizes.values, strict=True):
        assert [float(value) for value in row[1:10]] == pytest.approx(list(values), rel=1e-4)
    open_tab(page, "Merge")
    set_slider(page, "parity", 1)
    expect(page.locator("#shares")).to_contain_text("parity 57.1 %")
    open_tab(page, "Inspect")
    expect(sentence).not_to_contain_text("The sliders are equal now")
    found = mixing_histogram(own.prepared, own.recipe, [1, 0.25, 0.25, 0.25])
    expect(sentence).to_contain_text(f"parity has the largest share, {100 * found.means[0]:.1f} %")


def test_similarities_and_distances_are_mergings_own(page, own):
    open_tab(page, "Inspect")
    open_section(page, "Similar tasks")
    alike = similarity(own.prepared, own.recipe)
    for frame, values in (("task-cosine", alike.cosine), ("task2vec", alike.task2vec)):
        shown = [[float(value) for value in row[1:]] for row in numbers(page, frame)]
        assert shown == [pytest.approx(list(row), abs=1e-5) for row in values]
    open_section(page, "Distance moved")
    for by, first in (("layer", "embedding"), ("kind", "q")):
        page.get_by_label(by, exact=True).check()
        expect(page.locator("#moved-base-numbers tbody th").first).to_have_text(first)
        moved = distances_moved(own.prepared, own.recipe, by=by)
        shown = [[float(value) for value in row[1:]] for row in numbers(page, "moved-base")]
        assert shown == [pytest.approx(list(row), rel=1e-4) for row in 100 * moved.from_base.T]


def test_the_loss_plane_is_drawn_by_its_button_and_can_be_stopped(page, own):
    open_tab(page, "Inspect")
    open_section(page, "Loss plane")
    expect(page.locator("#loss-plane-sentence")).to_contain_text("press “Draw the loss plane”")
    press(page, "Draw the loss plane")
    expect(page.locator("#plane-progress [role=progressbar]")).to_be_visible()
    press(page, "Stop drawing")
    expect(page.locator("#plane-progress")).to_contain_text("Stopped.")
    press(page, "Draw the loss plane")
    expect(page.locator("#loss-plane .contourlayer .contourfill path").first).to_be_visible()
    expect(page.locator("#loss-plane .scatterlayer .trace")).to_have_count(5)
    rows = numbers(page, "loss-plane")[:5]
    prepared = own.prepared
    for place, name in enumerate(TASKS[:3]):
        assert rows[place][0] == name
        alone = [float(place == other) for other in range(4)]
        expected = mean_loss(prepared.predict_merged(prepared.parameters()[place], "validation", alone))
        assert float(rows[place][4]) == pytest.approx(expected, rel=1e-4)
    merged = prepared.predict_merged(own.merged, "validation", own.recipe.weights)
    assert float(rows[4][4]) == pytest.approx(mean_loss(merged), rel=1e-4)


def test_a_plane_through_one_model_twice_is_told(page):
    open_tab(page, "Inspect")
    open_section(page, "Loss plane")
    page.get_by_role("combobox", name="Corner 2").click()
    page.get_by_role("option", name="parity").click()
    press(page, "Draw the loss plane")
    expect(page.locator("#plane-progress [role=alert]")).to_contain_text("expected three different models, got 2")


def test_fishers_that_are_not_there_say_what_to_press(page):
    page.get_by_role("button", name="Fisher estimation").click()
    seed = page.get_by_role("spinbutton", name=re.compile("seed", re.IGNORECASE)).first
    seed.fill("41")
    seed.press("Tab")
    open_tab(page, "Inspect")
    expect(page.locator("#inspect-notice")).to_contain_text("press “Estimate Fisher”")
    expect(page.locator("#fisher-heatmap .hm")).to_have_count(0)


def test_axe_finds_nothing_serious_in_any_section_in_either_mode(page):
    open_tab(page, "Inspect")
    found = []
    for section in SECTIONS:
        open_section(page, section)
        page.evaluate("document.querySelectorAll('.studio-numbers details').forEach(one => one.open = true)")
        found += serious_in_both_modes(page, section)
    assert not found, "\n".join(found)


def test_a_phone_scrolls_no_section_sideways(new_page, server):
    page = new_page(server.url, **PHONE)
    open_page(page, server.url)
    open_tab(page, "Inspect")
    for section in SECTIONS:
        open_section(page, section)
        page.evaluate("document.querySelectorAll('.studio-numbers details').forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, section


def test_what_hovering_tells_can_be_read_in_both_modes(page):
    open_tab(page, "Inspect")
    for mode in MODES:
        panel = page.locator("#fisher-heatmap .heatmaplayer .hm image").first
        panel.scroll_into_view_if_needed()
        page.wait_for_function("document.querySelector('#fisher-heatmap .js-plotly-plot').data.every(one => one.text)")
        settle(page)
        box = panel.bounding_box()
        page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.25 * box["height"])
        label = page.locator("#fisher-heatmap .hoverlayer .hovertext")
        expect(label.locator("text.name")).to_have_text("parity")
        # What is told stands on near-black, the name beside it on white, whatever the mode.
        inks = [
            label.locator(f"text.{part}").evaluate("one => getComputedStyle(one).fill") for part in ("nums", "name")
        ]
        assert inks == ["rgb(255, 255, 255)", "rgb(17, 17, 17)"], mode
        assert label.locator("path").first.evaluate("one => getComputedStyle(one).fill") == "rgb(34, 34, 34)"
        page.mouse.move(2, 2)
        page.evaluate("document.body.classList.toggle('dark')")
