"""What the page looks like: contrast and names for everyone, phones, the keyboard."""

import pytest
from playwright.sync_api import expect

from tests.ui.accessible import serious, serious_in_both_modes
from tests.ui.looking import (
    TASKS,
    chart_bars,
    open_page,
    open_tab,
    settle,
    settled_bars,
    slider,
    wait_for_other_bars,
)

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
TABS = ("Merge", "Inspect", "Export")
MODES = ("light", "dark")
SIZES = {"desktop": {}, "phone": PHONE}


def _show(page, tab: str) -> None:
    """Opens a tab and waits until it is filled."""
    open_tab(page, tab)
    filled = {
        "Merge": chart_bars(page).first,
        "Inspect": page.locator("#owner-map .heatmaplayer .hm"),
        "Export": page.locator(".cm-line", has_text="zero_rule"),
    }
    expect(filled[tab]).to_be_visible()
    settle(page)


@pytest.mark.parametrize(("size", "first"), [("desktop", "light"), ("phone", "dark")])
def test_axe_finds_nothing_serious_on_any_tab_in_either_mode(new_page, server, size, first):
    page = new_page(server.url, **SIZES[size])
    open_page(page, f"{server.url}?__theme={first}")
    assert page.evaluate("document.body.classList.contains('dark')") == (first == "dark")
    found, inks = [], set()
    for _ in MODES:
        for tab in TABS:
            _show(page, tab)
            found += serious(page, tab)
        open_tab(page, "Merge")
        inks.add(page.locator("#score-chart .xtick text").first.evaluate("text => getComputedStyle(text).fill"))
        page.evaluate("document.body.classList.toggle('dark')")
        settle(page)
    assert not found, "\n".join(found)
    assert len(inks) == 2, "the chart's text follows the mode"


def test_a_notice_and_opened_settings_pass_axe_too(page):
    page.get_by_role("button", name="Fisher estimation").click()
    page.get_by_role("spinbutton", name="Floor of F").fill("-1")
    page.get_by_role("spinbutton", name="Floor of F").press("Tab")
    expect(page.locator("#notice [role=alert]")).to_be_visible()
    found = serious_in_both_modes(page, "notice")
    assert not found, "\n".join(found)


def test_a_phone_shows_the_chart_and_scrolls_no_tab_sideways(new_page, server):
    page = new_page(server.url, **PHONE)
    open_page(page, server.url)
    for tab in TABS:
        _show(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, tab
    open_tab(page, "Merge")
    expect(page.locator(".sidebar.open")).to_have_count(0)
    chart = page.locator("#score-chart")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    on_top = page.evaluate(
        "([x, y]) => document.elementFromPoint(x, y)?.closest('#score-chart') !== null",
        [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2],
    )
    assert on_top, "something covers the chart"
    scrolled = page.locator("#score-table .studio-scroll")
    caption = scrolled.locator("caption > span")
    for left in (0, 120):  # the table is wider than the screen, what it is about is not
        scrolled.evaluate("(element, left) => element.scrollTo(left, 0)", left)
        assert scrolled.evaluate("element => element.scrollLeft") == left
        box = caption.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


def test_a_phone_opens_and_closes_the_sidebar_without_scrolling_sideways(new_page, server):
    page = new_page(server.url, **PHONE)
    open_page(page, server.url)
    toggle = page.get_by_role("button", name="Toggle Sidebar")
    toggle.click()
    expect(page.locator(".sidebar.open")).to_have_count(1)
    expect(page.get_by_role("button", name="Estimate Fisher", exact=True)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    toggle.click()
    expect(page.locator(".sidebar.open")).to_have_count(0)


def test_a_desktop_opens_with_the_sidebar(page):
    expect(page.locator(".sidebar.open")).to_have_count(1)


def test_the_tab_key_reaches_every_slider_and_the_focus_is_seen(page):
    page.get_by_role("tab", name="Merge", exact=True).focus()
    reached = {}
    for _ in range(40):
        page.keyboard.press("Tab")
        name, seen = page.evaluate(
            """() => {
                const focused = document.activeElement, style = getComputedStyle(focused);
                const ring = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0;
                return [focused.ariaLabel || focused.innerText || '', ring || style.boxShadow !== 'none'];
            }"""
        )
        reached[name] = seen
        if name == "Merge and evaluate":
            break
    for task in TASKS:
        assert reached.get(f"range slider for λ · {task}"), (task, reached)
    for button in ("Equal λ", "Undo", "Merge and evaluate"):
        assert reached.get(button), (button, reached)


def test_the_keyboard_alone_moves_a_slider(page):
    before = settled_bars(page)
    page.get_by_role("spinbutton", name="λ · parity").focus()
    page.keyboard.press("Tab")
    expect(slider(page, "parity")).to_be_focused()
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    wait_for_other_bars(page, before)
