"""The README's examples for `gradio_client`: every event of the page has one, and all run as they are written."""

import ast
import contextlib
import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import gradio_client
import pytest

from tests.ui.server import ROOT

README = ROOT / "README.md"
SECTION = "\n## Use from a program\n"
ADDRESS = "http://127.0.0.1:7860"
BLOCK = re.compile(r"(?:<summary>([^<]*)</summary>\n\n)?```python\n(.*?)```", re.DOTALL)

# What the blocks print, in this order.
MERGED = "the Fisher merge is right on"
EXPECTED = {
    "Sidebar: pool, preset, models and the estimate": (
        *[MERGED, MERGED, "[0.3333, 0.3333, 0.3333, 0.0", "checks passed", "press “Estimate Fisher”"],
        *["press “Estimate Fisher”", MERGED, "the mean Fisher differs"],
    ),
    "Sidebar: a model of one's own": (
        "Labels even, odd",
        "no loop, has a loop",
        "loop is added.",
        "=> zoo:digits/loop",
    ),
    "Merge": (
        *[MERGED, MERGED, "[1.0, 0.5, 0.25, 0.25", "[0.25, 0.25, 0.25, 0.25", "[0.25, 0.25, 0.25, 0.25", "["],
        *[MERGED, MERGED, "K-FAC Fisher: Fisher merging with whole layers", "the K-FAC Fisher is right on"],
        *["the K-FAC Fisher is right on", "By time, from cheap to dear: ", "TIES", "By memory, from cheap to dear: "],
        *["K-FAC Fisher", "By Fisher examples", "“other” is right on", MERGED],
    ),
    "Inspect": (
        *["the mean Fisher differs", "the mean Fisher differs", "has the largest share", "The Fishers most alike"],
        *["Farthest from the base", "Farthest from the base", "loop is surer than large", "loop is surer than parity"],
        *["Layer 0, q", "Layer 0, q", "Layer 0, q", "Over all tasks", "off the plane through parity, large, base"],
    ),
    "Explore λ": (
        *["100", "Mean over the tasks", "Worst task", "Mean over the tasks", "0.69", "[", "[0.1, 0.2, 0.3, 0.4"],
        *["[0.4, 0.3, 0.2, 0.1", "parity 0.881, large 0.119", "0.69", "0.69", "0.69"],
    ),
    "Learn": (
        *["Step 2 of 4", "At λ = 0.25 the Fisher merge", "λ = 0.25", "lands at (1.25, 1.25)"],
        *["the diagonal gains 0.444, K-FAC gains 0.641", "(2.0, 1.0, 0.0", "(4.0, 0.5, 0.0", "(1.0, 1.0, 0.0"],
        *["(7.0, 6.0, 4.0", "With one example", "Fine-tuning the 2 models"],
    ),
    "Export": ("checkpoint: zoo:digits/parity", "weight: 0.5", MERGED, "expected a connection to the Hub"),
    "The page and its links": (MERGED, MERGED),
}


@dataclass
class Program:
    """What the first example leaves: its names, what it printed, and by event what was answered with an error since."""

    names: dict[str, object]
    printed: str
    refused: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def program(server, tmp_path_factory):
    """The first example, run against the page that the tests serve in place of the README's."""
    folder = tmp_path_factory.mktemp("program")
    program = Program({}, "")

    class Client(gradio_client.Client):
        def __init__(self, address: str) -> None:
            assert address == ADDRESS
            super().__init__(server.url, verbose=False, download_files=str(folder))

        def predict(self, *values: object, api_name: str) -> object:
            answer = super().predict(*values, api_name=api_name)
            if 'role="alert"' in str(answer):
                program.refused[api_name] = str(answer)
            return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(gradio_client, "Client", Client)
        program.printed = _run(_blocks()[""], program.names)
        yield program


def test_every_event_has_an_example_and_no_other_is_named(program):
    endpoints = program.names["client"].view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert _asked("\n".join(_blocks().values())) == set(endpoints)


def test_the_first_example_merges_moves_and_downloads(program):
    printed = program.printed.splitlines()
    assert [line for line in printed if MERGED in line] == printed[1:3]
    assert printed[0].startswith("Ready.")
    assert printed[1] != printed[2]
    assert Path(printed[3]) == Path(program.names["archive"])
    with zipfile.ZipFile(printed[3]) as archive:
        names = archive.namelist()
    assert {Path(name).name for name in names} >= {"recipe.yaml", "model.safetensors"}


def test_every_block_is_tested():
    assert list(_blocks()) == ["", *EXPECTED]


@pytest.mark.parametrize("title", EXPECTED)
def test_a_block_runs_after_the_first_alone(program, server, title):
    program.refused.clear()
    printed = rest = _run(_blocks()[title], {**program.names})
    for expected in EXPECTED[title]:
        _, found, rest = rest.partition(expected)
        assert found, (expected, printed)
    # The one that needs a network, which this page has been told not to use.
    assert set(program.refused) == ({"/push_to_hub"} if title == "Export" else set())
    server.require_alive()


def _blocks() -> Mapping[str, str]:
    """The section's Python by the titles it is folded under, each block at its lines of the README."""
    text = README.read_text(encoding="utf-8")
    start = text.index(SECTION) + len(SECTION)
    found = BLOCK.finditer(text, start, text.index("\n## ", start))
    return {one[1] or "": "\n" * text.count("\n", 0, one.start(2)) + one[2] for one in found}


def _asked(code: str) -> set[str]:
    """The events that the code asks for by name."""
    keywords = (node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.keyword))
    return {node.value.value for node in keywords if node.arg == "api_name"}


def _run(code: str, names: dict[str, object]) -> str:
    """What the code prints; its names stay in `names`."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(README), "exec"), names)
    return printed.getvalue()
