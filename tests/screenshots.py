"""Takes the pictures of the README: `python -m tests.screenshots [URL] [FOLDER]` of a page that is being served.

Every tab, light, dark and 390 px wide; the README shows `merge-light.png`.
"""

import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser import LAUNCH_ARGUMENTS, find
from tests.ui.looking import open_tab

VIEWS = {"light": (1360, 900, "light"), "dark": (1360, 900, "dark"), "phone": (390, 844, "light")}
TABS = {
    "Merge": "#score-chart .bars path",
    "Inspect": "#fisher-heatmap .hm image",
    "Explore λ": "#explore-best table",
    "Learn": "#lesson .main-svg",
    "Export": ".cm-content",
}
# Of the tabs that show nothing before it.
PRESSED = {"Explore λ": "Search", "Learn": "Start"}


def main(url: str = "http://127.0.0.1:7860", folder: str = "docs") -> None:
    """Opens every view of every tab and saves `TAB-VIEW.png`."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(find()), args=list(LAUNCH_ARGUMENTS))
        for view, (width, height, scheme) in VIEWS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"{url.rstrip('/')}/?__theme={scheme}", wait_until="domcontentloaded")
            page.wait_for_selector(TABS["Merge"], timeout=120_000)
            for tab, ready in TABS.items():
                open_tab(page, tab)
                if tab in PRESSED:
                    page.get_by_role("button", name=PRESSED[tab], exact=True).click()
                page.wait_for_selector(ready, timeout=120_000)
                _save(page, Path(folder) / f"{tab.split()[0].lower()}-{view}.png")
            page.close()
        browser.close()


def _save(page: Page, path: Path) -> None:
    # The sidebar is as high as the window: for a picture of the whole page the window is made as high as it.
    page.wait_for_timeout(1000)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": page.viewport_size["width"], "height": max(600, min(height, 4000))})
    page.wait_for_timeout(700)
    page.screenshot(path=path)


if __name__ == "__main__":
    main(*sys.argv[1:])
