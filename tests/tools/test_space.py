"""The folder that is pushed as a Space, and the front matter that the Hub reads."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceCard

from tools.space import LINK, ROOT, SpaceError, build, digest

# https://huggingface.co/docs/hub/spaces-config-reference
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
KEYS = {
    *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "fullWidth"),
    *("license", "short_description", "tags", "models", "datasets", "hf_oauth", "hf_oauth_scopes"),
}
SHORT = 60  # characters: the Hub refuses a longer short_description
# Letters of every alphabet, digits and signs on a keyboard are none.
EMOJI = re.compile(r"[\U0001F300-\U0001FAFF\u2600-\u27BF]\uFE0F?")


@pytest.fixture
def checkout(tmp_path):
    """A small repository with all that a Space needs, and some that it does not."""
    root = tmp_path / "checkout"
    files = {
        "app.py": "print('app')\n",
        "pyproject.toml": "[project]\n",
        "requirements.txt": "gradio\n",
        "LICENSE": "free\n",
        "README.md": "---\nsdk: gradio\n---\n![A page](docs/page.png), [how](HOW.md), [there](https://example.org), [up](#top)\n",
        "HOW.md": "so\n",
        "docs/page.png": "png",
        "docs/unseen.png": "png",
        "components/__init__.py": "",
        "components/page.js": "0",
        "merging/__init__.py": "",
        "merging/zoo/pool.yaml": "{}\n",
        "tests/test_app.py": "",
        ".ci/run": "",
        "Makefile": "",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    _git(root, "init", "--quiet")
    _git(root, "add", "--all")
    return root


@pytest.fixture(scope="module")
def card():
    """The README of this repository, as the Hub's own client reads it."""
    return SpaceCard.load(ROOT / "README.md")


def test_a_space_gets_the_app_and_what_its_readme_shows_and_nothing_else(checkout, tmp_path):
    names = build(tmp_path / "space", root=checkout)
    wanted = {"app.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md", "HOW.md", "docs/page.png"}
    wanted |= {"components/__init__.py", "components/page.js", "merging/__init__.py", "merging/zoo/pool.yaml"}
    assert set(names) == wanted == _files(tmp_path / "space")
    for name in names:
        assert (tmp_path / "space" / name).read_bytes() == (checkout / name).read_bytes()


def test_debian_packages_are_pushed_where_the_repository_names_them(checkout, tmp_path):
    (checkout / "packages.txt").write_text("libgomp1\n", encoding="utf-8")
    _git(checkout, "add", "packages.txt")
    assert "packages.txt" in build(tmp_path / "space", root=checkout)


def test_ignored_files_are_not_pushed(checkout, tmp_path):
    (checkout / ".gitignore").write_text("__pycache__/\n*.key\n", encoding="utf-8")
    (checkout / "merging" / "__pycache__").mkdir()
    (checkout / "merging" / "__pycache__" / "rules.pyc").write_text("", encoding="utf-8")
    (checkout / "components" / "own.key").write_text("secret", encoding="utf-8")
    assert not {name for name in build(tmp_path / "space", root=checkout) if "rules" in name or "key" in name}


def test_the_same_checkout_gives_the_same_folder(checkout, tmp_path):
    once, again = tmp_path / "once", tmp_path / "again"
    first = digest(once, build(once, root=checkout))
    (checkout / "app.py").touch()
    assert digest(again, build(again, root=checkout)) == first
    (checkout / "app.py").write_text("print('other')\n", encoding="utf-8")
    assert digest(again, build(again, root=checkout)) != first


def test_a_folder_built_before_loses_what_is_gone(checkout, tmp_path):
    build(tmp_path / "space", root=checkout)
    _git(checkout, "rm", "--quiet", "--force", "components/page.js")
    assert "components/page.js" not in build(tmp_path / "space", root=checkout)
    assert "components/page.js" not in _files(tmp_path / "space")


@pytest.mark.parametrize("name", ["app.py", "LICENSE", "pyproject.toml", "merging/__init__.py", "components/page.js"])
def test_a_missing_file_is_named_and_nothing_is_built(checkout, tmp_path, name):
    (checkout / name).unlink()
    with pytest.raises(SpaceError, match=re.escape(repr(name))):
        build(tmp_path / "space", root=checkout)
    assert not (tmp_path / "space").exists()


def test_a_picture_that_the_readme_shows_must_be_there(checkout, tmp_path):
    _git(checkout, "rm", "--quiet", "--cached", "docs/page.png")
    with pytest.raises(SpaceError, match=r"README\.md links to 'docs/page\.png'"):
        build(tmp_path / "space", root=checkout)


def test_a_readme_without_front_matter_is_refused(checkout, tmp_path):
    (checkout / "README.md").write_text("# A page\n", encoding="utf-8")
    with pytest.raises(SpaceError, match="front matter"):
        build(tmp_path / "space", root=checkout)


def test_a_module_that_git_does_not_know_is_named(checkout, tmp_path):
    # The Space would be without it, and not start.
    (checkout / "components" / "new.py").write_text("", encoding="utf-8")
    with pytest.raises(SpaceError, match=r"components/new\.py"):
        build(tmp_path / "space", root=checkout)


def test_a_folder_of_somebodys_own_stays_as_it_is(checkout, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(SpaceError, match=r"thesis\.txt"):
        build(own, root=checkout)
    assert _files(own) == {"thesis.txt"}
    for folder in (checkout, checkout / "docs", checkout / "app.py"):
        before = _files(checkout)
        with pytest.raises(SpaceError, match="another one: make space SPACE=DIR"):
            build(folder, root=checkout)
        assert _files(checkout) == before


def test_a_copy_without_git_is_told_to_clone(checkout, tmp_path):
    shutil.rmtree(checkout / ".git")
    with pytest.raises(SpaceError, match="expected a git checkout"):
        build(tmp_path / "space", root=checkout)


def test_make_says_why_it_refuses_without_a_traceback(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    command = ["make", "--no-print-directory", "space", f"SPACE={tmp_path}", f"PYTHON={sys.executable}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "The Space's folder was not built: " in done.stderr
    assert "Traceback" not in done.stderr
    assert _files(tmp_path) == {"thesis.txt"}


def test_the_front_matter_uses_only_what_the_hub_knows(card):
    assert set(card.data.to_dict()) <= KEYS
    assert card.data.sdk == "gradio"
    assert {card.data.colorFrom, card.data.colorTo} <= COLOURS
    assert EMOJI.fullmatch(card.data.emoji)
    assert 0 < len(card.data.short_description) <= SHORT
    assert isinstance(card.data.python_version, str), "Quote it: 3.10 as a number is 3.1."
    assert re.fullmatch(r"3\.\d+(\.\d+)?", card.data.python_version)


def test_the_front_matter_agrees_with_the_repository(card):
    lock = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "tests" / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    )
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert card.data.sdk_version == lock["gradio"], "The Space must run the Gradio that is tested."
    assert (ROOT / card.data.app_file).is_file()
    assert card.data.title in card.text
    least = re.search(r'requires-python = ">=3\.(\d+)"', project)[1]
    assert int(card.data.python_version.split(".")[1]) >= int(least)
    assert card.data.license == re.search(r'^license = "(.*)"$', project, re.MULTILINE)[1].lower()


def test_the_front_matter_names_what_the_presets_open(card):
    texts = [path.read_text("utf-8") for path in sorted((ROOT / "merging" / "presets").glob("*.yaml"))]
    presets = [yaml.safe_load(text) for text in texts]
    datasets = {task["dataset"] for preset in presets for task in preset["tasks"].values()}
    assert set(card.data.models) == {preset["base"] for preset in presets}
    assert set(card.data.datasets) == datasets


def test_login_asks_for_no_more_than_reading_and_repositories_of_its_own(card):
    assert card.data.hf_oauth is True
    assert set(card.data.hf_oauth_scopes) == {"read-repos", "contribute-repos"}


def test_every_link_of_the_readme_leads_somewhere():
    for name in LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name


def _files(folder: Path) -> set[str]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in paths if path.parts[0] != ".git"}


def _git(root: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=root, check=True, capture_output=True)
