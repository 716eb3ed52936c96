"""A real page, and a browser that watches what it does behind the visitor's back."""

import pytest

from tests import browser as browsers
from tests.ui.server import serving

WAIT_MS = 60_000
DESKTOP = {"width": 1280, "height": 1000}
# Made by the page of its own bytes.
OWN = ("data:", "blob:")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A browser's test that fails is repeated once: on two busy cores Gradio's page now and then loses what is typed.

    The summary names those that were repeated (R): each may be a race of the page's own, and wants a look.
    """
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.flaky(reruns=1))


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The page, served once for all tests; its log is shown when it dies."""
    with serving(tmp_path_factory.mktemp("page")) as running:
        yield running
        running.require_alive()


@pytest.fixture(scope="module")
def browser():
    """A Chromium. None is a failure with instructions, never a skip."""
    # Per module: Playwright's event loop runs in this thread, and other tests may want one of their own.
    from playwright.sync_api import expect, sync_playwright

    path = browsers.find()
    if path is None:
        pytest.fail("No Chromium that starts. Run `python -m tests.browser`, which installs one or says how.")
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(browsers.LAUNCH_ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def context(browser):
    """One visitor's browser for a module: what it loaded once is in its cache."""
    context = browser.new_context(viewport=DESKTOP)
    yield context
    context.close()


@pytest.fixture
def new_page(browser, context):
    """Makes pages that are watched: no console error, no page error, no request that leaves this machine."""
    from tests.ui.looking import follow

    own, pages, problems = [], [], []

    def make(url: str, **settings: object):
        if settings:
            own.append(browser.new_context(**{"viewport": DESKTOP, **settings}))
        page = (own[-1] if settings else context).new_page()
        pages.append(page)
        page.set_default_timeout(WAIT_MS)
        follow(page)
        page.on("console", lambda line: line.type == "error" and problems.append(f"console: {line.text}"))
        page.on("pageerror", lambda error: problems.append(f"page error: {error}"))
        page.on("request", lambda request: _note_leaving(request.url, url, problems))
        return page

    yield make
    for page in pages:
        if not page.is_closed():
            page.evaluate("localStorage.clear()")
            page.close()
    for other in own:
        other.close()
    assert not problems, "\n".join(problems)


@pytest.fixture
def page(new_page, server):
    """The page, open and at rest."""
    from tests.ui.looking import open_page, wait_for_answers

    opened = new_page(server.url)
    open_page(opened, server.url)
    wait_for_answers(opened)
    yield opened
    server.require_alive()


def _note_leaving(url: str, own: str, problems: list[str]) -> None:
    if not url.startswith((own, own.replace("http", "ws", 1), *OWN)):
        problems.append(f"a request left this machine: {url}")
