"""The Explore λ tab in a real browser: its own pages, whose searches start from nothing."""

import json
import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect

from merging.pipeline import evaluate, prepare
from merging.pools import open_pool
from merging.recipe import preset_recipe
from tests.ui.accessible import serious
from tests.ui.looking import open_page, press, settle, slider, wait_for_answers
from tests.ui.server import serving
from tests.ui.test_looks import PHONE

FIRST = {2: "Draw the curve", 3: "Draw the maps", 4: "Search"}
LAST_MODELS = ("remainder", "loop")
TABLE = "#explore-numbers tbody tr"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A page of this module's own, on which nothing was tried before."""
    with serving(tmp_path_factory.mktemp("explore")) as running:
        yield running
        running.require_alive()


def _open(page, models: int) -> None:
    """The Explore λ tab with the first models of the pool."""
    for name in LAST_MODELS[: 4 - models]:
        page.locator(".token", has_text=f"{name}:").locator(".token-remove").click()
        expect(page.get_by_role("slider", name=f"λ · {name}")).to_have_count(0)
    if models < 4:
        press(page, "Estimate Fisher")
    expect(page.locator("#score-chart .xtick")).to_have_count(models + 1)
    expect(page.locator("#shares .key")).to_have_count(models)
    _tab(page, "Explore λ")


def _tab(page, name: str) -> None:
    """Goes to a tab, on a phone perhaps by the menu of those that have no room."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if tab.count() and tab.is_visible():
        tab.click()
        return
    page.locator(".overflow-menu > button").click()
    page.locator(".overflow-dropdown button", has_text=name).click()


def _explored(page, models: int) -> None:
    """Everything tried and drawn."""
    _open(page, models)
    start = page.get_by_role("button", name=re.compile(f"^({FIRST[models]}|Go on)$"))
    expect(start).to_be_visible()
    settle(page)
    if not page.locator("#explore-best table").is_visible():  # what an earlier test tried is there
        if models == 4:
            _budget(page, 20)
        start.click()
    expect(page.locator("#explore-best table")).to_be_visible()
    expect(page.get_by_role("button", name="Stop exploring")).to_be_disabled()
    settle(page)


def _budget(page, number: int) -> None:
    field = page.get_by_role("spinbutton", name="Merges to try with each rule")
    field.fill(str(number))
    field.press("Tab")


def _rows(page, table: str = TABLE) -> list[list[float]]:
    """The exact numbers of a table."""
    cells = page.locator(table).evaluate_all(
        "rows => rows.map(row => [...row.cells].filter(cell => !cell.classList.contains('pick')).map(cell => cell.dataset.value))"
    )
    return [[float(cell) if re.fullmatch(r"[-\d.e]+", cell or "") else cell for cell in row] for row in cells]


def _recipe(models: int):
    recipe = preset_recipe(open_pool("digits"), "four-tasks")
    chosen = replace(recipe, models=recipe.models[:models])
    return replace(chosen, evaluation=replace(chosen.evaluation, split="validation"))


def test_the_curve_of_two_models_is_the_merges_own_and_a_click_sets_the_sliders(page):
    _explored(page, 2)
    assert page.locator("#explore .legendtext").all_text_contents()[:2] == ["isotropic average", "Fisher merge"]
    rows = _rows(page)
    assert [row[0] for row in rows] == pytest.approx([index / 50 for index in range(51)])
    recipe = _recipe(2)
    prepared = prepare(recipe)
    for place in (0, 17, 50):
        result = evaluate(prepared, recipe.with_weights(rows[place][:2]))
        drawn = {"fisher": rows[place][2], "isotropic": rows[place][5]}
        assert drawn == pytest.approx({rule: 100 * result.mean(rule) for rule in drawn}), place

    weights = _click_point(page, 0.3)
    expect(page.locator("#explore-odds")).to_contain_text(f"parity {weights[0]:g}, large {weights[1]:g}")
    _tab(page, "Merge")
    expect(page.locator("#shares")).to_contain_text(f"parity {100 * weights[0]:.1f} %")
    chart = page.locator("#score-chart")
    expect(chart.locator(".main-svg").first).to_be_visible()
    # It was drawn while its tab was hidden, and fits nevertheless.
    page.wait_for_function(
        """() => {
            const [chart, drawing] = ['#score-chart .js-plotly-plot', '#score-chart .main-svg']
                .map(name => document.querySelector(name).getBoundingClientRect().width);
            return chart > 0 && Math.abs(chart - drawing) < 3;
        }"""
    )
    press(page, "Undo")
    expect(page.locator("#shares")).to_contain_text("parity 50.0 %")


def _click_point(page, share: float) -> list[float]:
    """Clicks the Fisher curve at a share of the axis; returns the weights of the point there."""
    plot = page.locator("#explore .nsewdrag").first
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    left, right = -0.02, 1.02
    rows = _rows(page)
    nearest = min(rows, key=lambda row: abs(row[0] - share))
    x = box["x"] + box["width"] * (nearest[0] - left) / (right - left)
    page.mouse.move(x, box["y"] + box["height"] / 2)
    page.wait_for_timeout(300)
    page.mouse.click(x, box["y"] + box["height"] / 2)
    return nearest[:2]


def test_the_slider_of_log_odds_moves_both_sliders_by_the_keyboard(page):
    _explored(page, 2)
    odds = page.get_by_role("slider", name="log-odds of λ")
    odds.focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#explore-odds")).to_contain_text("parity 0.731, large 0.269")  # 1/(1 + e⁻¹)
    _tab(page, "Merge")
    expect(page.locator("#shares")).to_contain_text("parity 73.1 %")


def test_the_best_is_reported_on_test_and_sets_the_sliders(page):
    _explored(page, 2)
    expect(page.get_by_text("Chosen on validation, reported on test")).to_be_visible()
    rows = _rows(page)
    best = max(rows, key=lambda row: row[2])
    cells = page.locator("#explore-best tbody tr").first.locator("td").all_inner_texts()
    assert cells[0].startswith(f"{best[2]:.1f} %")
    recipe = _recipe(2)
    on_test = replace(recipe, evaluation=replace(recipe.evaluation, split="test"))
    result = evaluate(prepare(on_test), on_test.with_weights(best[:2]))
    assert cells[1].startswith(f"{100 * result.mean('fisher'):.1f} %")
    press(page, "Set sliders to the best")
    expect(page.locator("#explore-odds")).to_contain_text(f"parity {best[0]:.3g}")
    _tab(page, "Merge")
    expect(page.locator("#shares")).to_contain_text(f"parity {100 * best[0]:.1f} %")


def test_another_objective_is_ranked_anew_without_another_search(page):
    _explored(page, 2)
    page.get_by_role("combobox", name="Best by").click()
    page.get_by_role("option", name="task: large").click()
    expect(page.locator("#explore-sentence")).to_contain_text("Large on validation")
    wait_for_answers(page)
    rows = _rows(page)
    recipe = _recipe(2)
    result = evaluate(prepare(recipe), recipe.with_weights(rows[40][:2]))
    assert rows[40][2] == pytest.approx(100 * result.scores["fisher"]["large"].value)


def test_the_maps_of_three_models_have_66_tiles_each_and_a_row_of_the_table_sets_the_sliders(page):
    _explored(page, 3)
    expect(page.locator("#explore .ternarylayer > g")).to_have_count(2)
    assert page.locator("#explore .scatterlayer .trace .points path").count() >= 2 * 66
    expect(page.locator("#explore .colorbar, #explore .cbcoloraxis")).to_have_count(1)
    assert len(_rows(page)) == 66
    page.locator("#explore-numbers summary").click()
    row = page.locator(TABLE).nth(30)
    weights = [
        float(cell)
        for cell in row.evaluate(
            "row => [...row.cells].filter(cell => cell.dataset.value).map(cell => cell.dataset.value)"
        )
    ][:3]
    row.get_by_role("button", name="Use these λ").press("Enter")
    _tab(page, "Merge")
    expect(page.locator("#shares")).to_contain_text(f"parity {100 * weights[0]:.1f} %")
    expect(page.locator("#shares")).to_contain_text(f"loop {100 * weights[2]:.1f} %")


def test_a_search_goes_on_after_a_reload_is_stopped_from_another_tab_and_goes_on_again(page, new_page, server):
    other = new_page(server.url)
    open_page(other, server.url)
    page.bring_to_front()  # behind another one it is hardly ever painted, and would seem never to settle
    _open(page, 4)
    _budget(page, 500)
    page.get_by_role("button", name=re.compile("^(Search|Go on)$")).click()
    running = re.compile(r"\d+ of 1000 merges tried")
    expect(page.locator("#explore-progress")).to_contain_text(running)
    open_page(page, server.url)
    _tab(page, "Explore λ")
    expect(page.locator("#explore-progress")).to_contain_text(running)
    expect(page.locator("#explore .js-plotly-plot")).to_be_visible()

    # Headless, every page counts as seen.
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => true, configurable: true })")
    _tab(other, "Explore λ")
    expect(other.locator("#explore-progress")).to_contain_text(running)
    press(other, "Stop exploring")
    for tab in (other, page):
        expect(tab.locator("#explore-progress")).to_contain_text("Everything tried so far is kept")
    expect(other.locator("#explore-best table")).to_be_visible()
    expect(page.locator("#explore-best table")).to_have_count(0)  # nothing is drawn for nobody
    page.evaluate("delete document.hidden")
    page.bring_to_front()
    expect(page.locator("#explore-best table")).to_be_visible()
    before = len(_rows(page, "#explore-detail-numbers tbody tr"))
    assert 0 < before < 1000

    _budget(page, 500)
    press(page, "Go on")
    expect(page.locator("#explore-progress")).to_contain_text(running)
    press(page, "Stop exploring")
    expect(page.locator("#explore-progress")).to_contain_text("Everything tried so far is kept")
    expect(page.locator("#explore-best table")).to_be_visible()  # drawn with the table below: both wait for the end
    expect(page.locator("#explore .legendtext").first).to_have_text("best Fisher merge")
    assert len(_rows(page, "#explore-detail-numbers tbody tr")) > before


def test_other_models_do_not_show_the_old_ones_points(page):
    _explored(page, 2)
    page.locator(".token", has_text="large:").locator(".token-remove").click()
    expect(page.locator("#explore-notice [role=alert]")).to_contain_text("expected two or more models, got 1")
    expect(page.locator("#explore .js-plotly-plot")).to_have_count(0)
    page.locator(".token", has_text="parity:").locator(".token-remove").click()
    expect(page.locator("#explore-notice")).to_contain_text("No models yet")


HOSTILE = (
    "",
    "<script>alert(1)</script>",
    "0.5",
    "1 2 3 4",
    "nan 0 0 0",
    "0 0 0 0",
    "-1 1 1 1",
    "0.25 " * 500,
    "½ ½ 0 0",
)


def test_what_is_no_point_is_told_and_moves_nothing(page):
    _open(page, 4)
    told = page.locator("#explore-told [role=alert]")
    for value in HOSTILE:
        page.evaluate(
            """value => {
                const field = document.querySelector('#explore-picked textarea, #explore-picked input');
                field.value = value;
                field.dispatchEvent(new Event('input', {bubbles: true}));
                field.dispatchEvent(new KeyboardEvent('keypress', {key: 'a', bubbles: true}));
            }""",
            value,
        )
        expect(told).to_contain_text("expected 4 weights from 0 to 1")
        expect(told).to_contain_text(value[:12])
    assert page.locator("#explore-told script").count() == 0
    _tab(page, "Merge")
    assert slider(page, "parity").input_value() == "0.25"


@pytest.mark.parametrize(
    ("size", "mode"), [("desktop", "light"), ("desktop", "dark"), ("phone", "light"), ("phone", "dark")]
)
def test_axe_finds_nothing_serious_and_a_phone_does_not_scroll_sideways(new_page, server, size, mode):
    page = new_page(server.url, **(PHONE if size == "phone" else {"color_scheme": mode}))
    open_page(page, f"{server.url}?__theme={mode}")
    _tab(page, "Explore λ")
    start = page.get_by_role("button", name=re.compile("^(Search|Go on)$"))
    expect(start).to_be_visible()
    settle(page)
    found = serious(page, f"{size}, {mode}, as it is opened")
    if not page.locator("#explore-best table").is_visible():  # what another mode tried is there
        _budget(page, 20)
        start.click()
    expect(page.locator("#explore-best table")).to_be_visible()
    expect(start).to_be_enabled()  # and settled: on its way there its text is too pale
    settle(page)
    for summary in page.locator(".studio-numbers summary:visible").all():
        summary.click()
    settle(page)
    assert not found + serious(page, f"{size}, {mode}, filled")
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    chart = page.locator("#explore .main-svg").first.bounding_box()
    assert chart["x"] + chart["width"] <= page.viewport_size["width"]
    assert json.dumps(page.evaluate("document.body.classList.contains('dark')")) == json.dumps(mode == "dark")
