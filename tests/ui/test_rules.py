"""The rule picker in a real browser: other rules merge, stand beside each other, and say what they cost."""

import re
from dataclasses import replace

import pytest
from playwright.sync_api import expect

import merging
from components.style import TITLES
from merging.diagnostics import tradeoffs
from merging.rules import RULES, RuleSettings
from tests.ui.accessible import serious
from tests.ui.looking import (
    METHODS,
    TASKS,
    chart_bars,
    open_page,
    open_tab,
    pick,
    press,
    set_slider,
    settle,
    table_text,
    wait_for_answers,
)
from tests.ui.test_looks import PHONE


def beside(page, *titles):
    """Adds rules beside the page's own."""
    page.locator("#beside input").click()
    for title in titles:
        page.get_by_role("option", name=title, exact=True).click()
    page.keyboard.press("Escape")


def open_tradeoffs(page):
    """Unfolds the picture of score against cost."""
    page.get_by_role("button", name="Score against cost").click()
    expect(page.locator("#tradeoffs .main-svg").first).to_be_visible()


def points(page):
    """The picture's table: the exact numbers by method."""
    rows = page.locator("#tradeoffs-numbers tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => cell.dataset.value))"
    )
    return {row[0]: row[1:] for row in rows}


def means(page):
    """The table's row of means, by method."""
    heads = [" ".join(one.split()) for one in page.locator("#score-table thead th").all_inner_texts()]
    cells = page.locator("#score-table tr.mean td").all_inner_texts()
    return dict(zip(heads[1:], cells, strict=False))


@pytest.fixture(scope="module")
def expected():
    """What `merging` gives for the page's first choice with the same rules, and at another damping."""
    pool = merging.open_pool("digits")
    recipe = merging.preset_recipe(
        pool, "four-tasks", rule="kfac", compare=("isotropic", "ties", "ensemble", "experts")
    )
    return merging.run(recipe)


def test_the_chosen_rule_and_those_beside_it_are_drawn_with_mergings_own_numbers(page, expected):
    pick(page, "Rule", "K-FAC Fisher")
    expect(page.locator("#sentence")).to_contain_text("the K-FAC Fisher is right on", timeout=60_000)
    beside(page, "TIES")
    expect(page.locator("#score-table thead")).to_contain_text("TIES", timeout=60_000)
    settle(page)
    shown = ["experts (own task)", "isotropic average", "K-FAC Fisher", "TIES", "output ensemble"]
    assert page.locator("#score-chart .legendtext").all_text_contents() == shown
    expect(chart_bars(page)).to_have_count(len(shown) * (len(TASKS) + 1))
    found = means(page)
    for method, title in zip(("experts", "isotropic", "kfac", "ties", "ensemble"), shown, strict=True):
        assert found[title] == f"{100 * expected.mean(method):.1f}"
    assert found["K-FAC − isotropic"] == f"{100 * (expected.mean('kfac') - expected.mean('isotropic')):+.1f}"
    about = page.locator("#rules-about")
    for rule in ("kfac", "isotropic", "ties"):
        expect(about).to_contain_text(RULES[rule].sentence)
    expect(about).to_contain_text("needs the base")
    assert not serious(page, "rules")


def test_settings_of_rules_stand_open_only_where_they_count_and_are_applied_live(page):
    expect(page.get_by_role("button", name="Settings of rules")).to_have_count(0)
    pick(page, "Rule", "K-FAC Fisher")
    expect(page.locator("#sentence")).to_contain_text("the K-FAC Fisher is right on", timeout=60_000)
    page.get_by_role("button", name="Settings of rules").click()
    before = table_text(page)
    page.get_by_label("Damping").fill("30")
    page.get_by_label("Damping").press("Tab")
    expect(page.locator("#score-table")).not_to_have_text(before, use_inner_text=True)
    recipe = merging.preset_recipe(
        merging.open_pool("digits"), "four-tasks", rule="kfac", settings=RuleSettings(damping=30.0), compare=()
    )
    settle(page)
    assert means(page)["K-FAC Fisher"] == f"{100 * merging.run(recipe).mean('kfac'):.1f}"


def test_a_scale_moves_every_rule_and_goes_into_the_recipe(page):
    before = table_text(page)
    page.get_by_role("spinbutton", name="Scale").fill("1.5")
    page.get_by_role("spinbutton", name="Scale").press("Tab")
    expect(page.locator("#score-table")).not_to_have_text(before, use_inner_text=True)
    page.get_by_role("tab", name="Export", exact=True).click()
    expect(page.locator(".cm-content").first).to_contain_text("scale: 1.5")


def test_what_cannot_be_merged_so_is_told_and_the_last_chart_stays(page):
    pick(page, "Rule", "SLERP")
    notice = page.locator("#notice [role=alert]")
    expect(notice).to_contain_text("expected 2 models, got 4")
    assert page.locator("#score-chart .legendtext").all_text_contents() == METHODS
    pick(page, "Rule", "Fisher merge")
    expect(notice).to_have_count(0)


def test_layers_take_weights_of_their_own_and_a_slip_is_told(page):
    before = table_text(page)
    page.get_by_role("button", name="Other weights for some layers").click()
    field = page.locator("#layer-weights textarea")
    field.fill("layer 0 1, 0, 0, 0")
    field.press("Tab")
    expect(page.locator("#notice [role=alert]")).to_contain_text("expected a layer, a colon")
    field.fill("layer 0: 1, 0, 0, 0")
    field.press("Tab")
    expect(page.locator("#score-table")).not_to_have_text(before, use_inner_text=True)
    expect(page.locator("#notice [role=alert]")).to_have_count(0)


def test_score_against_cost_has_every_method_its_front_and_follows_the_sliders(page, expected):
    pick(page, "Rule", "K-FAC Fisher")
    beside(page, "TIES")
    expect(page.locator("#score-table thead")).to_contain_text("TIES", timeout=60_000)
    wait_for_answers(page)
    open_tradeoffs(page)
    shown = ["experts (own task)", "isotropic average", "K-FAC Fisher", "TIES", "output ensemble"]
    found = points(page)
    assert list(found) == shown
    means = {method: expected.mean(method) for method in expected.scores}
    asked = expected.prepared, expected.recipe, means, expected.merge_seconds
    for point in tradeoffs(*asked):
        score, _, size, examples, _, models = found[
            RULES[point.method].title if point.is_merge else TITLES[point.method]
        ]
        assert float(score) == pytest.approx(100 * point.score)
        assert (int(size), int(examples), int(models)) == (point.memory_bytes, point.examples, point.models)
    sentence = page.locator("#tradeoffs-sentence")
    expect(sentence).to_contain_text("By time, from cheap to dear: isotropic average")
    page.get_by_label("Fisher examples", exact=True).check()
    expect(sentence).to_contain_text("By Fisher examples")
    expect(sentence).to_contain_text(f"K-FAC Fisher {100 * expected.mean('kfac'):.1f} %")
    expect(page.locator("#tradeoffs .legendtext")).to_have_text(["front", *shown])
    with page.expect_download() as download:
        page.locator("#tradeoffs-numbers").get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "score-against-cost.csv"
    assert download.value.path().read_text().splitlines()[0].startswith("method,")
    before = sentence.inner_text()
    set_slider(page, "parity", 1.0)
    expect(sentence).not_to_have_text(before, use_inner_text=True)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_many_rules_fit_a_phone_and_axe_finds_nothing_serious(new_page, server, mode):
    page = new_page(server.url, color_scheme=mode, **PHONE)
    open_page(page, f"{server.url}?__theme={mode}")
    wait_for_answers(page)
    beside(page, "row Fisher", "UGM", "task arithmetic", "TIES", "DARE")
    expect(page.locator("#score-table thead")).to_contain_text("DARE", timeout=60_000)
    open_tradeoffs(page)
    wait_for_answers(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["viewport"]["width"]
    assert page.locator("#score-chart .legendtext").count() == 9
    assert not serious(page, f"many rules, {mode}")


def test_the_curve_of_two_models_has_a_third_rule_with_mergings_own_numbers(page):
    for name in ("remainder", "loop"):
        page.locator(".token", has_text=f"{name}:").locator(".token-remove").click()
        expect(page.get_by_role("slider", name=f"λ · {name}")).to_have_count(0)
    beside(page, "TIES")
    press(page, "Estimate Fisher")
    expect(page.locator("#score-table thead")).to_contain_text("TIES", timeout=60_000)
    expect(page.locator("#score-chart .xtick")).to_have_count(3)
    open_tab(page, "Explore λ")
    page.get_by_role("button", name=re.compile("^(Draw the curve|Go on)$")).click()
    expect(page.locator("#explore-best table")).to_contain_text("TIES", timeout=120_000)
    legend = ["output ensemble", "TIES", "isotropic average", "Fisher merge", "best Fisher merge"]
    assert sorted(
        re.sub(r" [\d.]+ %$", "", one) for one in page.locator("#explore .legendtext").all_text_contents()
    ) == sorted(legend)
    recipe = merging.preset_recipe(merging.open_pool("digits"), "four-tasks", rule="ties", compare=())
    pair = replace(recipe, models=recipe.models[:2], evaluation=replace(recipe.evaluation, split="validation"))
    result = merging.run(pair.with_weights([0.5, 0.5]))
    heads = page.locator("#explore-numbers thead th").all_text_contents()
    rows = page.locator("#explore-numbers tbody tr").evaluate_all(
        "rows => rows.map(row => [...row.cells].map(cell => Number(cell.dataset.value)))"
    )
    middle = next(row for row in rows if row[0] == 0.5)
    assert middle[heads.index("TIES")] == pytest.approx(100 * result.mean("ties"))
