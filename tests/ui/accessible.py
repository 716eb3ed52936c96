"""What axe says of the page."""

import json

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from tests.ui.looking import settle


def serious(page: Page, where: str) -> list[str]:
    """What axe finds that is serious or critical."""
    return [
        f"{where}: {problem['id']}: "
        + json.dumps([node["html"][:150] + node["failureSummary"][:200] for node in problem["nodes"][:3]])
        for problem in Axe().run(page).response["violations"]
        if problem["impact"] in ("serious", "critical")
    ]


def serious_in_both_modes(page: Page, where: str) -> list[str]:
    """The same, light and dark; the mode is then the one before."""
    found = []
    for _ in ("one", "other"):
        settle(page)
        found += serious(page, where)
        page.evaluate("document.body.classList.toggle('dark')")
    return found
