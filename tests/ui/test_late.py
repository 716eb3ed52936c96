"""Answers that are late, as on a busy server: whatever the page asked for meanwhile is still drawn."""

from dataclasses import replace

import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from components.links import link_query
from merging.pools import open_pool
from merging.recipe import FisherSettings, preset_recipe
from tests.ui.looking import open_page, press, slider

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
