"""Answers that are late, as on a busy server: whatever the page asked for meanwhile is still drawn."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from components.links import link_query
from merging.pools import open_pool
from merging.recipe import FisherSettings, preset_recipe
from tests.ui.looking import open_page, open_tab, press, slider, wait_for_answers

LATE_MS = 3000
LEFT = ("parity", "large")


@pytest.fixture
def page(new_page, server):
    """The page, at rest."""
    page = new_page(server.url)
    open_page(page, server.url)
    expect(page.get_by_role("button", name="Stop", exact=True)).to_be_disabled()
    return page


class Held:
    """The first request for an event, or the answer to it, kept back until it is let go."""

    def __init__(self, page: Page, number: int, *, answer: bool = False) -> None:
        self._number = number
        self.route: Route | None = None
        self._answer = answer
        self._response: APIResponse | None = None
        page.route("**/queue/join*", self._asked)

    def _asked(self, route: Route) -> None:
        if self.route is None and route.request.post_data_json["fn_index"] == self._number:
            self.route = route
            self._response = route.fetch() if self._answer else None
        else:
            route.continue_()

    def wait(self, page: Page) -> None:
        """Until the page has asked."""
        for _ in range(600):
            if self.route is not None:
                return
            page.wait_for_timeout(100)
        pytest.fail("the page never asked")

    def let_go(self) -> None:
        """Sends it on."""
        self.route.fulfill(response=self._response) if self._answer else self.route.continue_()


def _number(page: Page, event: str) -> int:
    return page.evaluate("name => window.gradio_config.dependencies.find(one => one.api_name === name).id", event)


def _without(page: Page, name: str) -> None:
    page.locator(".token", has_text=f"{name}:").locator(".token-remove").click()
    expect(slider(page, name)).to_have_count(0)


def test_an_estimate_that_ends_while_the_picture_of_another_is_on_its_way_is_drawn(page):
    held = Held(page, _number(page, "show_finished"))
    _without(page, "loop")
    press(page, "Estimate Fisher")
    held.wait(page)
    _without(page, "remainder")
    press(page, "Estimate Fisher")
    page.wait_for_timeout(LATE_MS)
    held.let_go()
    expect(page.locator("#score-chart .xtick")).to_have_count(len(LEFT) + 1)


def test_two_choices_at_once_are_both_heard(page):
    held = Held(page, _number(page, "choose_models"))
    page.locator(".token", has_text="loop:").locator(".token-remove").click()
    held.wait(page)
    page.locator(".token", has_text="remainder:").locator(".token-remove").click()
    page.wait_for_timeout(500)
    held.let_go()
    for name in ("loop", "remainder"):
        expect(slider(page, name)).to_have_count(0)


def test_a_late_answer_does_not_take_away_the_picture_of_a_later_request(page, new_page, server):
    """A link's own picture, which says that the Fishers are being estimated, and then that of the estimate's end."""
    recipe = replace(preset_recipe(open_pool("digits"), "four-tasks"), fisher=FisherSettings(examples=24))
    number = _number(page, "show_link")
    page = new_page(server.url)
    held = Held(page, number, answer=True)
    page.goto(server.url + link_query(recipe).removeprefix("/"), wait_until="domcontentloaded")
    held.wait(page)
    page.wait_for_timeout(LATE_MS)
    held.let_go()
    expect(page.locator("#progress")).to_contain_text("Ready.")
    page.wait_for_timeout(LATE_MS)
    assert "Fisher" in page.locator("#score-table").inner_text()


class HeldStream:
    """The next stream of answers, kept back on its way to the server, or once the server has closed it."""

    def __init__(self, page: Page, *, closed: bool) -> None:
        self._closed = closed
        self._route: Route | None = None
        self._response: APIResponse | None = None
        page.route("**/queue/data*", self._asked)

    def _asked(self, route: Route) -> None:
        if self._route is None:
            self._route = route
            self._response = route.fetch() if self._closed else None
        else:
            route.continue_()

    @property
    def is_held(self) -> bool:
        return self._route is not None and (self._response is not None or not self._closed)

    def let_go(self) -> None:
        """Sends the request on, or its whole answer."""
        self._route.fulfill(response=self._response) if self._closed else self._route.continue_()


def _inspecting(page: Page) -> None:
    open_tab(page, "Inspect")
    expect(page.locator("#owner-map .main-svg").first).to_be_visible()
    wait_for_answers(page)


def _until(page: Page, has_happened: Callable[[], bool]) -> None:
    for _ in range(600):
        if has_happened():
            return
        page.wait_for_timeout(100)
    pytest.fail("it never happened")


def test_a_request_that_is_taken_up_while_its_stream_is_being_closed_is_answered(page):
    _inspecting(page)
    stream = HeldStream(page, closed=True)
    open_tab(page, "Mixing weights")
    _until(page, lambda: stream.is_held)
    with page.expect_response("**/queue/join*"):
        open_tab(page, "Similar tasks")
    stream.let_go()
    expect(page.locator("#task2vec .main-svg").first).to_be_visible()
    wait_for_answers(page)


def test_an_answer_that_comes_before_its_request_is_taken_up_leaves_no_stream_open(page):
    _inspecting(page)
    stream = HeldStream(page, closed=False)
    late = Held(page, _number(page, "inspect_similarity"), answer=True)
    open_tab(page, "Mixing weights")
    _until(page, lambda: stream.is_held)
    open_tab(page, "Similar tasks")
    late.wait(page)
    page.wait_for_timeout(LATE_MS)
    with page.expect_event("requestfinished", lambda request: "/queue/data" in request.url):
        stream.let_go()
    late.let_go()
    expect(page.locator("#task2vec .main-svg").first).to_be_visible()
    wait_for_answers(page)
