"""The folder that `make space` builds, in a fresh environment: as a Space, and as the container of a server of one's own."""

import json
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests import dockerfile, pythons
from tests.ui.looking import bar_shapes, open_page
from tests.ui.server import ROOT, Server, serving

LOCK = ROOT / "tests" / "constraints.txt"
PYTHON = "3.12"  # what the README's front matter and the Dockerfile ask for
# What only torch for CUDA brings along, gigabytes of it.
CUDA = re.compile(r"(nvidia|cuda)-")
LOCAL_UPLOAD = 2 * 1024**3  # bytes, of which a page on one's own machine takes that much
# Bytecode is written for what is imported, which is a part of what is installed.
QUIET = ("--quiet", "--no-compile")


@pytest.mark.timeout(1500)  # an installation of a hundred packages
def test_what_is_pushed_installs_and_opens_by_itself(new_page, tmp_path, capsys):
    folder = _built(tmp_path / "space")
    files = _files(folder)
    python, said = _environment(tmp_path / "environment", folder)
    with capsys.disabled():
        print(f"\n{said}")
    _opens_as_a_space(new_page, tmp_path, folder, python)
    _serves_as_a_container(tmp_path, folder, python)
    # A container's user may not write there.
    assert _files(folder) == files


def _opens_as_a_space(new_page, tmp_path: Path, folder: Path, python: str) -> None:
    # Without SYSTEM=spaces, by which Gradio would start the platform's own reload server beside the page.
    with serving(tmp_path / "run", command=(python, "app.py"), root=folder, SPACE_ID="somebody/studio") as server:
        page = new_page(server.url)
        open_page(page, server.url)
        assert len(bar_shapes(page)) >= 16  # four methods on four tasks
        _require_hosted(server)
        page.close()  # before its server, which it would miss
        server.require_alive()


def _serves_as_a_container(tmp_path: Path, folder: Path, python: str) -> None:
    """Its own command and variables, and the question that the engine asks."""
    asked = _with(python, dockerfile.health_command())
    environment = dict(dockerfile.environment())
    # Not what the engine gives: the volume, an address that only this machine sees, and a free port.
    assert environment.pop("GRADIO_SERVER_NAME") == "0.0.0.0"
    port = environment.pop("GRADIO_SERVER_PORT")
    for name in ("FISHER_CACHE_DIR", "HF_HOME"):
        environment[name] = str(tmp_path / Path(environment[name]).relative_to("/"))
    command = tuple(_with(python, dockerfile.command()))
    with serving(tmp_path / "container", command=command, root=folder, **environment) as server:
        assert _health(asked, server.url.rstrip("/").rsplit(":", 1)[1]).returncode == 0
        health = json.loads(_read(server, "health"))
        assert health["version"] == _version()
        assert "Fisher Merge Studio" in _read(server, "")
        _require_hosted(server)
        server.require_alive()
    assert port == "7860"
    dead = _health(asked, server.url.rstrip("/").rsplit(":", 1)[1])
    assert dead.returncode != 0, "A server that is gone counts as healthy."


def _built(folder: Path) -> Path:
    _run("make", "-C", str(ROOT), "--no-print-directory", "space", f"SPACE={folder}", f"PYTHON={sys.executable}")
    return folder


def _environment(environment: Path, folder: Path) -> tuple[str, str]:
    """A Python with nothing but the folder's requirements, and a sentence on which one it is."""
    wanted = ("-r", str(folder / "requirements.txt"), "-c", str(LOCK))
    other = pythons.find(PYTHON)
    why = f"no Python {PYTHON} is here"
    if other:
        python = _fresh(other, environment)
        _run(python, "-W", "error", "-m", "compileall", "-q", str(folder))
        if not (why := _gigabytes(python, wanted)):
            _run(python, "-m", "pip", "install", *QUIET, *wanted)
            return python, f"The Space's folder was installed for Python {PYTHON}."
    python = _fresh(sys.executable, environment)
    _run(python, "-m", "pip", "install", *QUIET, *wanted)
    version = ".".join(map(str, sys.version_info[:2]))
    return python, f"The Space's folder was installed for Python {version}, not {PYTHON}: {why}."


def _fresh(python: str, environment: Path) -> str:
    subprocess.run([python, "-m", "venv", "--clear", str(environment)], check=True, timeout=300)
    return str(environment / "bin" / "python")


def _gigabytes(python: str, wanted: tuple[str, ...]) -> str | None:
    """Why this Python is not installed for, though everything can be had for it: its torch brings CUDA. None otherwise."""
    # Older ones download every wheel as a whole to answer.
    _run(python, "-m", "pip", "install", *QUIET, "--upgrade", "pip>=25")
    report = _run(
        python, "-m", "pip", "install", *QUIET, "--dry-run", "--report", "-", "--only-binary", ":all:", *wanted
    )
    names = [package["metadata"]["name"] for package in json.loads(report)["install"]]
    assert "torch" in names
    return "its torch brings CUDA, gigabytes of it" if any(map(CUDA.match, names)) else None


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def _health(command: list[str], port: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, env={**os.environ, "GRADIO_SERVER_PORT": port}, capture_output=True, timeout=60)


def _with(python: str, command: list[str]) -> list[str]:
    assert command[0] == "python"
    return [python, *command[1:]]


def _read(server: Server, address: str) -> str:
    with urllib.request.urlopen(server.url + address, timeout=60) as answer:
        return answer.read().decode()


def _require_hosted(server: Server) -> None:
    largest = json.loads(_read(server, "config"))["max_file_size"]
    assert largest < LOCAL_UPLOAD, "It opens as on one's own machine, not as for strangers."


def _version() -> str:
    return re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)[1]


def _files(folder: Path) -> set[str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path.relative_to(folder).as_posix() for path in paths}
