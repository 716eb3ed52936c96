"""How long `python app.py` takes to serve, and a browser to show the first chart, with Fishers cached and without.

`python -m tests.benchmarks.start` starts the page twice with a Fisher cache of its own: first empty, then filled.
"""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request

from playwright.sync_api import sync_playwright

from tests.browser import LAUNCH_ARGUMENTS, find

PORT = 7899


def main() -> None:
    """Measures and prints seconds."""
    with tempfile.TemporaryDirectory() as cache:
        for state in ("empty", "filled"):
            serving, chart = _measure(cache)
            print(f"Fisher cache {state}: serving after {serving:.1f} s, chart {chart:.1f} s after opening", flush=True)


def _measure(cache: str) -> tuple[float, float]:
    settings = {**os.environ, "FISHER_CACHE_DIR": cache, "GRADIO_SERVER_PORT": str(PORT)}
    started = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, "app.py"], env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not _serves() and server.poll() is None and time.perf_counter() - started < 120:
            time.sleep(0.05)
        serving = time.perf_counter() - started
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(find()), args=list(LAUNCH_ARGUMENTS))
            page = browser.new_page()
            opened = time.perf_counter()
            page.goto(f"http://127.0.0.1:{PORT}", wait_until="domcontentloaded")
            page.wait_for_selector("#score-chart .bars path", timeout=120_000)
            chart = time.perf_counter() - opened
            browser.close()
        return serving, chart
    finally:
        server.terminate()
        server.wait(timeout=30)


def _serves() -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/", timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


if __name__ == "__main__":
    main()
