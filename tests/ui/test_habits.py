"""Links, the merges of a visit, downloads of pictures, and the tour, in a browser."""

import csv
import io
import re
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Page, expect

import merging
from tests.ui.accessible import serious_in_both_modes
from tests.ui.looking import (
    TASKS,
    open_page,
    open_tab,
    pick,
    press,
    set_slider,
    settled_bars,
    table_text,
    wait_for_answers,
)


def _link(page: Page) -> str:
    open_tab(page, "Export")
    field = page.locator("#link textarea")
    expect(field).to_have_value(re.compile(r"^http.*\?recipe="))
    return field.input_value()


def _keep(page: Page, name: str) -> None:
    heading = page.get_by_role("button", name="Merges of this visit")
    if not page.get_by_label("Name of the next merge").is_visible():
        heading.click()
    page.get_by_label("Name of the next merge").fill(name)
    press(page, "Merge and evaluate")
    expect(page.locator("#merges-numbers").get_by_role("rowheader", name=name, exact=True)).to_be_visible()


def test_a_link_reopens_the_settings(page, new_page, server):
    set_slider(page, "parity", 0.75)
    page.get_by_label("validation", exact=True).check()
    bars = settled_bars(page)
    table = table_text(page)
    link = _link(page)
    other = new_page(server.url)
    open_page(other, link)
    expect(other.get_by_role("spinbutton", name="λ · parity")).to_have_value("0.75")
    expect(other.locator("#score-table")).to_contain_text("on the validation split")
    assert settled_bars(other) == bars
    assert table_text(other) == table


def test_a_link_opens_a_pool_and_a_tab(new_page, server):
    page = new_page(server.url)
    page.goto(f"{server.url}?pool=digits&preset=robust&tab=export", wait_until="domcontentloaded")
    expect(page.get_by_role("tab", name="Export", exact=True)).to_have_attribute("aria-selected", "true")
    open_tab(page, "Merge")
    expect(page.get_by_role("slider", name="λ · narrow")).to_be_visible()


@pytest.mark.parametrize(
    "query", ["?recipe=%3Cscript%3Ealert(1)%3C/script%3E", "?pool=../../etc", "?recipe=eJw", "?tab=<b>"]
)
def test_a_hostile_link_leaves_the_page_as_it_is_and_says_so(new_page, server, query):
    page = new_page(server.url)
    open_page(page, server.url + query)
    expect(page.locator("#notice")).to_contain_text("expected")
    expect(page.locator("#shares")).to_contain_text("parity 25.0 %")
    server.require_alive()


def test_a_merge_of_this_visit_is_reloaded_and_two_are_compared(page):
    _keep(page, "equal")
    set_slider(page, "parity", 1)
    settled_bars(page)
    _keep(page, "more parity")
    expect(page.locator("#compared-merges .bars .point").first).to_be_visible()
    expect(page.locator("#compared-merges-sentence")).to_contain_text("“more parity” is right on")
    found = serious_in_both_modes(page, "the merges of a visit")
    assert not found, "\n".join(found)
    row = page.locator("#merges-numbers tr", has=page.get_by_role("rowheader", name="equal", exact=True))
    row.get_by_role("button", name="Reload").press("Enter")
    expect(page.get_by_role("spinbutton", name="λ · parity")).to_have_value("0.25")
    wait_for_answers(page)
    page.reload(wait_until="domcontentloaded")
    page.get_by_role("button", name="Merges of this visit").click()
    expect(page.locator("#merges-numbers").get_by_role("rowheader", name="more parity")).to_be_visible()


def test_the_charts_numbers_and_drawing_are_downloaded(page, four_tasks):
    with page.expect_download() as download:
        page.locator("#score-table").get_by_role("button", name="Download CSV").click()
    assert download.value.suggested_filename == "accuracy-per-task.csv"
    with open(download.value.path(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(io.StringIO(file.read())))
    result = merging.run(merging.preset_recipe(merging.open_pool("digits"), "four-tasks"))
    for row, task in zip(rows, TASKS, strict=False):
        assert row["task"] == task
        assert float(row["Fisher merge"]) == pytest.approx(100 * result.scores["fisher"][task].value)
    with page.expect_download() as download:
        page.locator("#score-table").get_by_role("button", name="Download SVG").click()
    root = ElementTree.parse(download.value.path()).getroot()
    assert root.tag.endswith("svg")
    text = " ".join(root.itertext())
    assert all(task in text for task in TASKS)


def test_the_tour_is_offered_once_walked_by_keyboard_and_dismissed_for_good(new_page, server):
    page = new_page(server.url)
    open_page(page, server.url)
    expect(page.get_by_text("New here?")).to_be_visible()
    page.get_by_role("button", name="Tour, 60 seconds").press("Enter")
    card = page.get_by_role("dialog")
    steps = int(card.locator(".buttons span").inner_text().split()[-1])
    for step in range(1, steps + 1):
        expect(card).to_contain_text(f"{step} of {steps}")
        expect(page.locator(".studio-toured")).to_have_count(1)
        if step < steps:
            card.get_by_role("button", name="Next").press("Enter")
    page.keyboard.press("Escape")
    expect(card).to_have_count(0)
    expect(page.get_by_text("New here?")).to_be_hidden()
    wait_for_answers(page)
    page.reload(wait_until="domcontentloaded")
    expect(page.get_by_role("button", name="Tour, 60 seconds")).to_be_visible()
    expect(page.get_by_text("New here?")).to_be_hidden()


def test_a_page_at_rest_asks_the_server_for_nothing(page):
    asked = []
    page.on("request", lambda request: asked.append(request.post_data) if "queue/join" in request.url else None)

    def require_rest(where: str) -> None:
        settled_bars(page)
        page.wait_for_timeout(2500)
        asked.clear()
        page.wait_for_timeout(2500)
        assert not asked, f"{where}: {asked[:3]}"

    require_rest("opened")
    pick(page, "Preset", "Robust fine-tuning")
    expect(page.get_by_role("slider", name="λ · narrow")).to_be_visible()
    page.wait_for_timeout(2000)
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()
    require_rest("another preset")
    pick(page, "Preset", "Four tasks, four heads")
    expect(page.get_by_role("slider", name="λ · remainder")).to_be_visible()
    for tab in ("Inspect", "Explore λ", "Learn", "Export"):
        open_tab(page, tab)
        page.wait_for_timeout(3000)
        open_tab(page, "Merge")
        require_rest(tab)
