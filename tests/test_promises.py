"""Every test that a document names is there: a promise whose test was renamed or deleted is found here."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
DOCUMENTS = ("SECURITY.md", "README.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_is_there(document):
    named = NAMED.findall((ROOT / document).read_text(encoding="utf-8"))
    missing = [f"{file}::{test}" for file, test in named if test not in _tests_of(ROOT / file)]
    assert not missing


def test_every_threat_names_its_test():
    lines = (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith(("| from", "|---"))]
    assert len(rows) > 10
    assert [row for row in rows if not NAMED.search(row)] == []


def test_every_fault_names_its_test_or_says_that_there_is_none():
    """A row of README's table of faults names tests, or says so where there is none yet."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.partition("### What happens when something breaks\n")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert len(rows) > 15
    assert [row for row in rows if not NAMED.search(row) and not row.endswith("| no test yet |")] == []


def _tests_of(file: Path) -> set[str]:
    if not file.is_file():
        return set()
    return {node.name for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if hasattr(node, "name")}
