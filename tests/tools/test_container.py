"""The Dockerfile, as far as it can be checked without a container engine; tests/ui/test_space.py runs its commands."""

import re
import subprocess

import pytest
import yaml

from tests import dockerfile
from tools.space import FILES, ROOT, TREES

SECRET = re.compile(r"token|secret|passw|credential|api_?key", re.IGNORECASE)
IGNORED = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_what_the_image_copies_is_in_the_repository_and_let_through():
    sources = [source for sources, _ in dockerfile.copied() for source in sources]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in IGNORED, f".dockerignore keeps {source} from the build."


def test_the_image_holds_what_a_space_holds():
    sources = {source for sources, _ in dockerfile.copied() for source in sources}
    assert sources == {*FILES, *TREES, "tests/constraints.txt"}


def test_nothing_but_what_is_copied_reaches_the_build():
    # The first line keeps everything out, and no later one lets in a whole tree, a history, or a file of settings.
    rules = [line for line in IGNORED if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    assert let_in == {source for sources, _ in dockerfile.copied() for source in sources}


def test_the_app_runs_as_somebody_who_is_not_root():
    names = [name for name, _ in dockerfile.instructions()]
    users = dockerfile.values("USER")
    assert len(users) == 1
    assert users[0] not in ("", "root", "0")
    assert any(re.search(rf"useradd .*\b{users[0]}\b", line) for line in dockerfile.values("RUN"))
    # Nothing is copied or built after it, and what runs comes later: the app's files belong to root.
    assert names.index("USER") > max(index for index, name in enumerate(names) if name in ("COPY", "RUN"))
    assert names.index("USER") < names.index("CMD")


def test_what_is_kept_lies_on_a_volume_that_the_user_may_write():
    volume, user = dockerfile.values("VOLUME")[0], dockerfile.values("USER")[0]
    assert any(f"install -d -o {user} -g {user} {volume}" in line for line in dockerfile.values("RUN"))
    for name in ("FISHER_CACHE_DIR", "HF_HOME"):
        assert dockerfile.environment()[name].startswith(f"{volume}/")


def test_the_container_serves_strangers():
    environment = dockerfile.environment()
    assert dockerfile.command() == ["python", "app.py", "--hosted"]
    assert environment["GRADIO_SERVER_NAME"] == "0.0.0.0"
    assert dockerfile.values("EXPOSE") == [environment["GRADIO_SERVER_PORT"]]


def test_the_engine_asks_for_health():
    assert "/health" in dockerfile.health_command()[-1]
    # An estimate may keep the processor busy; a start takes seconds.
    for option in ("--interval=", "--timeout=", "--start-period=", "--retries="):
        assert option in dockerfile.values("HEALTHCHECK")[0]


@pytest.mark.parametrize("path", [dockerfile.PATH, ROOT / ".dockerignore"], ids=lambda path: path.name)
def test_no_secret_is_written_into_the_image(path):
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert not [line for line in lines if SECRET.search(line)]


def test_the_image_is_built_like_the_space():
    front_matter = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    arguments = dict(value.split("=", 1) for value in dockerfile.values("ARG"))
    assert arguments["PYTHON"] == front_matter["python_version"]
    assert dockerfile.values("FROM") == ["python:${PYTHON}-slim"]
    assert arguments["TORCH"] == "cpu", "CUDA is asked for, not brought along."
    assert "pip install -r requirements.txt -c constraints.txt" in dockerfile.values("RUN")


def test_torch_comes_in_the_tested_version():
    line = next(line for line in dockerfile.values("RUN") if "--index-url" in line)
    asked = re.search(r'"(\$\(grep [^"]*\))"', line)[1]
    shell = subprocess.run(
        ["sh", "-c", f'echo "{asked}"'], cwd=ROOT / "tests", capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"torch==[\d.]+", shell.stdout.strip()), shell.stdout
