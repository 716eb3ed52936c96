"""The Merge tab and the Inspect tab in a real browser."""

import re

import httpx
from playwright.sync_api import expect

from tests.ui.looking import (
    METHODS,
    TASKS,
    bar_shapes,
    chart_bars,
    choose,
    drag,
    open_tab,
    press,
    set_slider,
    settled_bars,
    slider,
    table_text,
    wait_for_other_bars,
)


def test_it_opens_on_a_chart_of_four_tasks_with_all_methods(page):
    expect(chart_bars(page)).to_have_count(len(METHODS) * (len(TASKS) + 1))  # and the means
    assert page.locator("#score-chart .legendtext").all_text_contents() == METHODS
    ticks = page.locator("#score-chart .xtick text").all_text_contents()
    assert ticks == [*TASKS, "mean"]
    assert page.locator("#score-chart .errorbar").count() >= len(METHODS) * len(TASKS)


def test_it_opens_with_a_sentence_and_a_table_without_any_typing(page):
    expect(page.locator("#sentence")).to_contain_text("isotropic averaging")
    rows = page.locator("#score-table tbody th").all_inner_texts()
    assert rows == [*TASKS, "mean", "forward passes per input"]
    assert page.locator("#score-table").get_by_text("forward passes per input").locator("..").inner_text().split("\t")[
        1:5
    ] == ["1", "1", "1", "4"]
    assert page.locator("#shares").inner_text().count("25.0 %") == 4


def test_the_page_travels_small(server):
    answer = httpx.get(server.url)
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < 150_000 < len(answer.content)


def test_dragging_a_slider_changes_bars_table_and_shares(page):
    before, table = settled_bars(page), table_text(page)
    drag(page, "parity", 0.9)
    wait_for_other_bars(page, before)
    expect(page.locator("#score-table")).not_to_have_text(table, use_inner_text=True)
    expect(page.locator("#shares")).not_to_contain_text("parity 25.0 %")
    assert float(slider(page, "parity").input_value()) > 0.8


def test_an_arrow_key_changes_bars_table_and_shares(page):
    slider(page, "parity").focus()
    for _ in range(20):
        page.keyboard.press("ArrowRight")
    expect(page.locator("#shares")).to_contain_text("parity 37.5 %")  # 0.45 of 1.2
    before = settled_bars(page)
    table = table_text(page)
    for _ in range(30):
        page.keyboard.press("ArrowRight")
    wait_for_other_bars(page, before)
    expect(page.locator("#shares")).to_contain_text("parity 50.0 %")
    expect(page.locator("#score-table")).not_to_have_text(table, use_inner_text=True)


def test_weights_of_zero_are_told_and_the_last_chart_stays(page):
    for model in TASKS[:-1]:
        set_slider(page, model, 0)
    expect(page.locator("#shares")).to_contain_text("remainder 100.0 %")
    before = settled_bars(page)
    set_slider(page, TASKS[-1], 0)
    notice = page.locator("#notice [role=alert]")
    expect(notice).to_be_visible()
    assert re.search(r"expected .* got ", notice.inner_text())
    assert bar_shapes(page) == before
    press(page, "Equal λ")
    expect(page.locator("#shares")).to_contain_text("remainder 25.0 %")
    expect(notice).to_have_count(0)


def test_undo_goes_back_move_by_move_to_the_first_weights(page):
    drag(page, "parity", 0.9)
    dragged = slider(page, "parity").input_value()
    share = 100 * float(dragged) / (float(dragged) + 0.75)
    expect(page.locator("#shares")).to_contain_text(f"parity {share:.1f} %")
    page.wait_for_timeout(1100)  # moves closer together than a second are one move, which is what is tested
    set_slider(page, "loop", 0)
    expect(page.locator("#shares")).to_contain_text("loop 0.0 %")
    press(page, "Undo")
    expect(slider(page, "loop")).to_have_value("0.25")
    expect(slider(page, "parity")).to_have_value(dragged)
    for _ in range(8):  # the steps of a drag on a slow machine lie farther apart
        if slider(page, "parity").input_value() == "0.25":
            break
        press(page, "Undo")
        page.wait_for_timeout(700)
    expect(slider(page, "parity")).to_have_value("0.25")
    expect(page.locator("#shares")).to_contain_text("parity 25.0 %")
    press(page, "Undo")
    expect(page.locator("#shares")).to_contain_text("parity 25.0 %")


def test_equal_weights_and_weights_by_size_set_the_sliders(page):
    set_slider(page, "parity", 1)
    expect(page.locator("#shares")).to_contain_text("parity 57.1 %")
    press(page, "Equal λ")
    expect(page.locator("#shares")).to_contain_text("parity 25.0 %")
    set_slider(page, "parity", 1)
    expect(page.locator("#shares")).to_contain_text("parity 57.1 %")
    press(page, "By dataset size")  # the four tasks have the same rows
    expect(page.locator("#shares")).to_contain_text("parity 25.0 %")


def test_the_split_and_the_normalisation_change_what_is_shown(page):
    before = settled_bars(page)
    choose(page, "Scored on", "validation")
    expect(page.locator("#score-table caption")).to_contain_text("validation split")
    wait_for_other_bars(page, before)
    before = settled_bars(page)
    choose(page, "Normalise F", "none")
    wait_for_other_bars(page, before)
    before = settled_bars(page)
    choose(page, "Normalise F", "l2")
    wait_for_other_bars(page, before)


def test_floor_and_zero_rule_are_applied_live(page):
    before = settled_bars(page)
    floor = page.get_by_role("spinbutton", name="Floor of F")
    floor.fill("1000000")  # far above every Fisher: all models weigh the same everywhere
    floor.press("Tab")
    wait_for_other_bars(page, before)
    # A floor above every Fisher is isotropic averaging.
    expect(page.locator("#score-table tr.mean td").nth(4)).to_have_text("+0.0")
    floor.fill("0")
    floor.press("Tab")
    expect(page.locator("#score-table tr.mean td").nth(4)).not_to_have_text("+0.0")
    for rule in ("target", "base", "mean"):
        choose(page, "Where Σ λF = 0", rule)
        press(page, "Merge and evaluate")
        expect(page.locator("#notice .error")).to_have_count(0)
        expect(chart_bars(page).first).to_be_visible()


def test_a_negative_floor_is_told_and_the_chart_stays(page):
    before = settled_bars(page)
    floor = page.get_by_role("spinbutton", name="Floor of F")
    floor.fill("-1")
    floor.press("Tab")
    expect(page.locator("#notice [role=alert]")).to_contain_text("got -1")
    assert bar_shapes(page) == before


def test_inspect_draws_a_heatmap_per_model_on_one_scale_and_the_owner_map(page):
    open_tab(page, "Inspect")
    panels = page.locator("#fisher-heatmap .heatmaplayer .hm")
    expect(panels).to_have_count(len(TASKS))
    assert page.locator("#fisher-heatmap .annotation-text").all_text_contents() == TASKS
    expect(page.locator("#fisher-heatmap .colorbar, #fisher-heatmap .cbcoloraxis")).to_have_count(1)
    expect(page.locator("#owner-map .heatmaplayer .hm")).to_have_count(1)
    assert page.locator("#owner-map .legendtext").all_text_contents() == TASKS
    rows = page.locator("#fisher-facts-numbers tbody tr")
    expect(rows).to_have_count(len(TASKS))
    shares = [float(text.split("\t")[-1]) for text in rows.all_inner_texts()]
    assert abs(sum(shares) - 100) < 0.5


def test_the_owner_map_follows_the_weights(page):
    set_slider(page, "loop", 0)
    expect(page.locator("#shares")).to_contain_text("loop 0.0 %")
    open_tab(page, "Inspect")
    row = page.locator("#fisher-facts-numbers tbody tr", has_text="loop")
    expect(row.locator("td").last).to_have_text("0")
