"""Finds a Chromium for the page's tests; run as a program, installs one where none is there.

Order: $CHROMIUM, a system one, Playwright's own, a download by Playwright, Debian's package.
`python -m tests.browser` prints the path on standard output, everything else goes to standard error.
"""

import os
import shutil
import subprocess
import sys

# --no-sandbox: root may not use Chromium's sandbox. --disable-dev-shm-usage: containers offer only 64 MB there.
LAUNCH_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")

_SYSTEM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SYSTEM_PATHS = (
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
_DEBIAN_PACKAGES = ("chromium", "fonts-dejavu-core")  # the font has Greek letters: λ is on the page

_INSTRUCTIONS = """\
No Chromium: expected a browser that starts, found none and could install none (see the lines above).
Do one of these, then run it again:
  sudo apt-get install chromium                 Debian
  brew install --cask chromium                  macOS
  python -m playwright install --with-deps chromium
  export CHROMIUM=/path/to/chromium             any other Chromium or Chrome"""


def find() -> str | None:
    """Return the path of a Chromium that starts, or None. Installs nothing."""
    chosen = os.environ.get("CHROMIUM")
    if chosen:
        if _starts(chosen):
            return chosen
        _say(f"CHROMIUM={chosen!r} does not start; looking for another browser.")
    for candidate in (*map(shutil.which, _SYSTEM_NAMES), *_SYSTEM_PATHS):
        if candidate and _starts(candidate):
            return candidate
    bundled = _playwright_path()
    return bundled if bundled and _starts(bundled) else None


def install() -> str | None:
    """Install a Chromium by the first way that works; return its path, or None where no way did."""
    for attempt in (_download_with_playwright, _install_debian_package):
        attempt()
        if path := find():
            return path
    return None


def main() -> int:
    """Print the path of a Chromium, installing it first where needed; 1 where there is none."""
    path = find() or install()
    if path is None:
        _say(_INSTRUCTIONS)
        return 1
    print(path)
    return 0


def _starts(path: str) -> bool:
    # A file is no proof: Ubuntu's `chromium-browser` only tells to install a snap, and libraries may be missing.
    try:
        return subprocess.run([path, "--version"], capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _playwright_path() -> str | None:
    # In a process of its own: a second sync_playwright() inside a running one is an error.
    program = (
        "from playwright.sync_api import sync_playwright as start\n"
        "with start() as playwright: print(playwright.chromium.executable_path)"
    )
    try:
        found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return None
    path = found.stdout.strip()
    return path if found.returncode == 0 and os.path.exists(path) else None


def _download_with_playwright() -> None:
    _say("No Chromium yet; asking Playwright to download one.")
    environment = {"PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "10000"}  # milliseconds; its own 30 s are tried repeatedly
    _run([sys.executable, "-m", "playwright", "install", "chromium"], timeout_s=300, environment=environment)


def _install_debian_package() -> None:
    if not shutil.which("apt-get") or not hasattr(os, "geteuid") or os.geteuid() != 0:
        _say("Debian's package needs apt-get and root; not tried.")
        return
    _say("Installing Debian's package `chromium`.")
    options = ["-qq", "-o", "DPkg::Lock::Timeout=60"]
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    _run(["apt-get", "update", *options], timeout_s=180, environment=environment)
    command = ["apt-get", "install", *options, "-y", "--no-install-recommends", *_DEBIAN_PACKAGES]
    _run(command, timeout_s=900, environment=environment)


def _run(command: list[str], *, timeout_s: float, environment: dict[str, str]) -> None:
    # Failure is told, not raised: whether it worked is decided by find(), and the next way is tried.
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout_s,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _say(f"{' '.join(command)}: {error}")
        return
    if done.returncode != 0:
        last_lines = "\n".join(done.stdout.strip().splitlines()[-5:])
        _say(f"{' '.join(command)}: exit {done.returncode}\n{last_lines}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
