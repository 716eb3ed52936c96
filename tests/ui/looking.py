"""What the tests see of the page and do to it, by the names that screen readers read."""

from weakref import WeakKeyDictionary

from playwright.sync_api import Locator, Page, Request, expect

_STREAMS: WeakKeyDictionary[Page, set[Request]] = WeakKeyDictionary()
METHODS = ["experts (own task)", "isotropic average", "Fisher merge", "output ensemble"]
TASKS = ["parity", "large", "loop", "remainder"]


def open_page(page: Page, url: str) -> None:
    """Opens the page, anew if need be, and waits for its chart. Never waits for networkidle: the heartbeat stays open."""
    if page in _STREAMS:
        wait_for_answers(page)
    page.goto(url, wait_until="domcontentloaded")
    chart_bars(page).first.wait_for()
    expect(page.locator("#shares")).to_contain_text("normalised λ")


def open_tab(page: Page, name: str) -> None:
    """Goes to a tab; on a phone some of them stand in a menu."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if tab.is_visible():
        return tab.click()
    menu = page.locator(".overflow-menu").filter(has_text=name)
    menu.get_by_label("More tabs").click()
    menu.get_by_role("button", name=name, exact=True).click()


def chart_bars(page: Page) -> Locator:
    """The bars of the score chart."""
    return page.locator("#score-chart .bars .point")


def bar_shapes(page: Page) -> list[str]:
    """Every bar's outline, in order: equal only where the chart shows the same."""
    return page.locator("#score-chart .bars .point > path:first-child").evaluate_all(
        "paths => paths.map(path => path.getAttribute('d'))"
    )


def wait_for_other_bars(page: Page, before: list[str]) -> None:
    """Until the chart shows other bars than before."""
    page.wait_for_function(
        """before => {
            const paths = [...document.querySelectorAll('#score-chart .bars .point > path:first-child')];
            const now = paths.map(path => path.getAttribute('d'));
            return now.length > 0 && JSON.stringify(now) !== JSON.stringify(before)
                && !document.querySelector('.studio-preview');
        }""",
        arg=before,
    )


def slider(page: Page, model: str) -> Locator:
    """A model's λ."""
    return page.get_by_role("slider", name=f"λ · {model}", exact=False)


def set_slider(page: Page, model: str, weight: float) -> None:
    """Types a λ into the field beside its slider."""
    field = page.get_by_role("spinbutton", name=f"λ · {model}")
    field.fill(str(weight))
    field.press("Tab")


def drag(page: Page, model: str, to: float) -> None:
    """Drags a λ with the mouse, from where it is to a share of the track."""
    handle = slider(page, model)
    handle.scroll_into_view_if_needed()
    box, start = handle.bounding_box(), float(handle.input_value())
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * start, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * to, middle, steps=8)
    page.mouse.up()


def settled_bars(page: Page) -> list:
    """The bars once two looks at them, a moment apart, are the same: a chart is drawn after its answer has come."""
    settle(page)
    bars = bar_shapes(page)
    for _ in range(100):
        page.wait_for_timeout(300)
        if (again := bar_shapes(page)) == bars:
            return bars
        bars = again
    raise AssertionError("the bars never stand still")


def press(page: Page, button: str) -> None:
    """Presses a button by its name."""
    page.get_by_role("button", name=button, exact=True).click()


def choose(page: Page, group: str, option: str) -> None:
    """Picks one of a group of radio buttons."""
    page.get_by_role("radiogroup", name=group).or_(page.locator("fieldset", has_text=group)).get_by_label(
        option, exact=True
    ).check()


def pick(page: Page, dropdown: str, option: str) -> None:
    """Picks an entry of a list."""
    page.get_by_role("combobox", name=dropdown, exact=True).click()
    page.get_by_role("option", name=option).click()


def table_text(page: Page) -> str:
    """The table of scores."""
    return page.locator("#score-table").inner_text()


def follow(page: Page) -> None:
    """From now on it is known which answers are on their way to the page."""
    streams = _STREAMS[page] = set()
    page.on("request", lambda request: streams.add(request) if "/queue/" in request.url else None)
    for ended in ("requestfinished", "requestfailed"):
        page.on(ended, lambda request: streams.discard(request))


def wait_for_answers(page: Page) -> None:
    """Until none is on its way: Gradio tells the console of answers that a reload cuts off."""
    settle(page)
    for _ in range(600):
        page.wait_for_timeout(100)
        if not _STREAMS[page]:
            return
    raise AssertionError(f"never answered: {[request.url for request in _STREAMS[page]]}")


def settle(page: Page) -> None:
    """Until nothing is greyed, a preview, or on its way between two colours."""
    page.wait_for_function(
        """() => !document.querySelector('.pending, .generating, .studio-preview')
            && !document.getAnimations().some(one => one instanceof CSSTransition && one.playState === 'running')"""
    )
