"""From hand to paint: a key's press on a λ slider until the browser has drawn the new bars.

`python -m tests.benchmarks.paint [POOL/PRESET …]` serves the page, opens each preset in a headless Chromium and prints
the median and the 95th percentile of 24 moves in milliseconds, taken by the browser's own clock; "Explore λ" meanwhile
searches in a second window beside it where `--search` is given, in a tab behind it where `--behind` is.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import re
import tempfile
from pathlib import Path

import numpy
from playwright.sync_api import Browser, Page, expect, sync_playwright

from components.links import link_query
from merging.pools import open_pool
from merging.recipe import Recipe, preset_recipe
from tests.benchmarks.studio import PRESETS
from tests.browser import LAUNCH_ARGUMENTS, find
from tests.ui.looking import chart_bars, open_page, open_tab, settle
from tests.ui.server import serving

MOVES = 24
SEARCH = re.compile("^(Search|Draw the (curve|maps)|Go on)$")
# From the key to the frame after Plotly drew. Nothing looks meanwhile: on two cores, looking takes time from the server.
TIMED = """weight => new Promise(done => {
    const drawing = document.querySelector('#score-chart .js-plotly-plot');
    const slider = document.querySelector('input[type=range][aria-label*="λ"]');
    const limit = setTimeout(() => done(-1), 20000);
    slider.value = String(weight);
    const [before, started] = [drawing.data, performance.now()];
    const drawn = () => drawing.data !== before && requestAnimationFrame(() => setTimeout(() => {
        clearTimeout(limit);
        drawing.removeListener('plotly_afterplot', drawn);
        done(performance.now() - started);
    }));
    drawing.on('plotly_afterplot', drawn);  // a fit to the width draws the old figure anew: that one does not count
    slider.dispatchEvent(new Event('input', { bubbles: true }));
})"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=[*PRESETS, "digits/robust"])
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--behind", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(find()), args=list(LAUNCH_ARGUMENTS))
        for name in chosen.presets:
            pool, _, preset = name.partition("/")
            own = open_pool(pool)
            recipe = preset_recipe(own, preset if preset in [one.name for one in own.presets] else own.presets[0].name)
            taken = _moves(
                browser,
                server.url + link_query(recipe).removeprefix("/"),
                recipe,
                chosen.search or chosen.behind,
                chosen.behind,
            )
            middle, high = numpy.median(taken), numpy.percentile(taken, 95)
            print(
                f"{name}: hand to paint, {MOVES} moves: median {middle:.0f} ms, 95th percentile {high:.0f} ms",
                flush=True,
            )
        browser.close()


def _moves(browser: Browser, url: str, recipe: Recipe, searching: bool, behind: bool) -> list[float]:
    page = _opened(browser, url, recipe)
    if searching:
        other = _opened(browser, url, recipe)
        open_tab(other, "Explore λ")
        other.get_by_role("button", name=SEARCH).click()
        if behind:  # headless, every tab counts as seen
            other.evaluate("Object.defineProperty(document, 'hidden', { get: () => true })")
        page.bring_to_front()
    taken = []
    for number in range(MOVES):
        taken.append(page.evaluate(TIMED, 0.1 + 0.8 * ((number * 7) % MOVES) / MOVES))
        page.wait_for_timeout(700)
        settle(page)
    assert min(taken) > 0, "a move drew nothing"
    page.close()
    return taken


def _opened(browser: Browser, url: str, recipe: Recipe) -> Page:
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(120_000)
    open_page(page, url)
    first = recipe.models[0].checkpoint.rsplit("/", 1)[-1]
    expect(page.locator("#score-table")).to_contain_text("Fisher", timeout=120_000)
    expect(page.locator("#shares")).to_contain_text(first, timeout=120_000)
    expect(page.locator("#progress")).not_to_contain_text("%", timeout=120_000)
    settle(page)
    chart_bars(page).first.wait_for()
    return page


if __name__ == "__main__":
    main()
