"""The page's API with values that no widget would send: every event, over HTTP, against a real server."""

import asyncio
import json
import os
import random

import httpx
import pytest

from tests.load.session import Refused, Session
from tests.ui.server import serving
from tests.ui.test_client import EVENTS

# What JSON can hold in place of any value.
ODD = (
    *(
        None,
        True,
        -1,
        0,
        1e308,
        10**30,
        "",
        "x",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "zoo:digits/parity",
        "\ud800",
    ),
    *(
        "=1+1",
        "{",
        "NaN",
        "a" * 5000,
        [],
        [None],
        [[]],
        [{}],
        ["x"] * 100,
        {},
        {"a": 1},
        {"value": "x", "__type__": "update"},
    ),
    *(
        {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
        {"path": "http://127.0.0.1:1/x", "meta": {"_type": "gradio.FileData"}},
    ),
    *([[0, 1, 2]], [["a", 1]], "0" * 32, float("nan"), float("inf")),
)
TIMES = int(os.environ.get("FUZZ_TIMES", "1"))
# Frames of this program: Gradio tells visitors of what its own widgets refuse, and logs it with a traceback.
OURS = ("components/", "merging/", "app.py")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A page of its own: what it logs is read line by line."""
    with serving(tmp_path_factory.mktemp("api")) as running:
        yield running


def bugs(log: str) -> list[str]:
    """The ends of the tracebacks that lead through this program."""
    found = []
    for part in log.split("Traceback (most recent call last):\n")[1:]:
        frames = [line for line in part.splitlines() if line.startswith("  File ")]
        own = [line for line in frames if any(f"/{name}" in line for name in OURS) and "site-packages" not in line]
        # The server's own start is in every thread's last frames, what stands around Gradio in every request's, or between it
        # and its widgets: no bugs.
        around = ("in __call__", "in run_sync")
        if [line for line in own if "app.py" not in line and not line.endswith(around)]:
            found.append("\n".join([*own[-2:], part.strip().splitlines()[-1][:200], part[-1500:]]))
    return found


def malformed(sound: list[object], generator: random.Random) -> list[list[object]]:
    """Every value odd; then one, two or three of the sound ones."""
    all_odd = [[odd] * len(sound) for odd in generator.sample(ODD, min(TIMES, len(ODD)))]
    some = []
    for _ in range(TIMES):
        values = list(sound)
        for at in generator.sample(range(len(sound)), min(len(sound), generator.randint(1, 3))):
            values[at] = generator.choice(ODD)
        some.append(values)
    return [*all_odd, *some] if sound else []


async def _send(url: str) -> int:
    sent, generator = 0, random.Random(0)
    async with httpx.AsyncClient(timeout=60) as http:
        session = Session(http, url)
        await session.load()
        for name in sorted(EVENTS):
            event = session.events[name.strip("/")]
            count = len([own for own in event["inputs"] if own not in session.stateful])
            sound = EVENTS[name][0] or [""] * count
            assert len(sound) == count, name
            for values in malformed(list(sound), generator):
                sent += 1
                try:
                    json.dumps(await session.call(name.strip("/"), values))
                except Refused:
                    # What cannot be carried out is refused, and a session whose stream has ended goes on as another one.
                    session = Session(http, url, events=session.events, stateful=session.stateful)
        answer = await http.get(url)
        answer.raise_for_status()
    return sent


def test_no_event_breaks_on_malformed_values(server):
    sent = asyncio.run(_send(server.url))
    assert sent > 150
    assert server.process.poll() is None
    found = bugs(server.log())
    assert not found, f"{len(found)} tracebacks of {sent} calls:\n" + "\n\n".join(found[:5])
