"""The page's command line: MCP tools where they are asked for, and what is said where they cannot be served."""

import importlib.util
import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.ui.server import serving

ROOT = Path(__file__).resolve().parents[1]
# Says what the page is launched with, and serves nothing.
LAUNCHED = """
import sys
from types import ModuleType
import app
if "--mcp" in sys.argv:
    sys.modules["mcp"] = ModuleType("mcp")
app.begin = app.FOLDERS.begin = lambda *arguments, **named: None
app.gr.Blocks.launch = lambda page, **settings: print(settings["mcp_server"])
app.main()
"""
WITHOUT_THE_PACKAGE = """
import sys
sys.modules["mcp"] = None
import app
app.main()
"""


def ran(code, *flags, **environment):
    """A process of this program with these flags."""
    command = [sys.executable, "-c", code, *flags]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(("flags", "served"), [([], "False"), (["--hosted"], "False"), (["--mcp"], "True")])
def test_events_are_mcp_tools_only_where_that_is_asked_for(tmp_path, flags, served):
    # By this variable alone, Gradio would serve them.
    done = ran(LAUNCHED, *flags, GRADIO_MCP_SERVER="true", FISHER_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == served


def test_without_the_package_one_line_says_how_to_get_it(tmp_path):
    done = ran(WITHOUT_THE_PACKAGE, "--mcp", FISHER_CACHE_DIR=str(tmp_path / "fishers"))
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith('The MCP tools cannot be served: expected the package "mcp", got "')
    assert line.endswith('Run pip install "gradio[mcp]", or leave out --mcp.')
    assert not (tmp_path / "fishers").exists(), "it is seen before anything is begun"


@pytest.mark.skipif(importlib.util.find_spec("mcp") is None, reason='needs pip install "gradio[mcp]"')
def test_the_schema_lists_the_pages_events_and_one_can_be_called(tmp_path):
    with serving(tmp_path, command=(sys.executable, "app.py", "--mcp")) as server:
        with urllib.request.urlopen(f"{server.url}gradio_api/mcp/schema", timeout=60) as answer:
            assert {"shown", "equal_weights", "exported"} <= {tool["name"] for tool in json.load(answer)}
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        asked["params"] = {"name": "equal_weights", "arguments": {}}
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        request = urllib.request.Request(f"{server.url}gradio_api/mcp/", json.dumps(asked).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            assert "0.25" in answer.read().decode()
        server.require_alive()
