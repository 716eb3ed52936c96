"""One tab of a browser as the server sees it: the page, its events, their answers, by Gradio's own protocol over HTTP."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

# What a tab waits for at most before its visitor would give up.
ANSWER_S = 120.0
# How long one who leaves in the middle of an answer stays.
LEAVE_S = 0.05
CALLED = "gradio_api/queue/join"
CALLED_AT_ONCE = "gradio_api/run/predict"
TOLD = "gradio_api/queue/data"


class Refused(Exception):
    """An event that the server did not carry out, with what it said."""


@dataclass
class Session:
    """One tab. `events` are the page's by their public names; `http` may be shared by many tabs."""

    http: httpx.AsyncClient
    url: str
    session_hash: str = field(default_factory=lambda: uuid.uuid4().hex[:11])
    events: dict[str, dict[str, object]] = field(default_factory=dict)
    stateful: set[int] = field(default_factory=set)

    async def load(self) -> None:
        """What a browser asks for first: the page, which holds its configuration."""
        page = await self.http.get(self.url)
        page.raise_for_status()
        config, _ = json.JSONDecoder().raw_decode(page.text.split("window.gradio_config = ", 1)[1])
        self.events = {one["api_name"]: one for one in config["dependencies"] if one.get("api_name")}
        self.stateful = {one["id"] for one in config["components"] if one["type"] == "state"}

    async def call(self, name: str, values: Sequence[object]) -> list[object]:
        """Asks for an event and waits for its answer, the server's own state left out on both sides.

        Raises: Refused with the server's words; httpx.HTTPError where there are none.
        """
        if self.events[name]["queue"] is False:
            return self._answer(name, {"success": True, "output": await self._posted(CALLED_AT_ONCE, name, values)})
        event_id = await self.ask(name, values)
        async with asyncio.timeout(ANSWER_S), self._stream() as stream:
            async for message in _messages(stream):
                if message.get("event_id") == event_id and message["msg"] == "process_completed":
                    return self._answer(name, message)
                if message["msg"] == "unexpected_error":
                    raise Refused(str(message.get("message")))
        raise Refused("the stream ended without an answer")

    async def leave_while_waiting(self, name: str, values: Sequence[object]) -> None:
        """Asks, hears that the server has begun or queued it, and closes the tab."""
        if self.events[name]["queue"] is False:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_S):
                    await self._posted(CALLED_AT_ONCE, name, values)
            return
        await self.ask(name, values)
        async with asyncio.timeout(ANSWER_S), self._stream() as stream:
            async for _ in _messages(stream):
                return

    async def ask(self, name: str, values: Sequence[object]) -> str:
        """Queues an event; its id. Raises: Refused where the queue is full."""
        return (await self._posted(CALLED, name, values))["event_id"]

    async def _posted(self, where: str, name: str, values: Sequence[object]) -> dict[str, object]:
        event = self.events[name]
        given = iter(values)
        data = [None if own in self.stateful else next(given) for own in event["inputs"]]
        body = {"data": data, "fn_index": event["id"], "session_hash": self.session_hash, "event_data": None}
        # Whatever Python calls JSON, NaN included: a page of somebody's own may send it.
        sent = {"content": json.dumps(body), "headers": {"Content-Type": "application/json"}}
        answer = await self.http.post(f"{self.url}{where}", **sent)
        if answer.status_code != httpx.codes.OK:
            raise Refused(f"{answer.status_code}: {answer.text[:300]}")
        return answer.json()

    async def fetch(self, file: dict[str, object]) -> bytes:
        """A file that an answer named."""
        answer = await self.http.get(str(file["url"]))
        answer.raise_for_status()
        return answer.content

    def _stream(self):
        parameters = {"session_hash": self.session_hash}
        return self.http.stream("GET", f"{self.url}{TOLD}", params=parameters, timeout=ANSWER_S)

    def _answer(self, name: str, message: dict[str, object]) -> list[object]:
        output = message["output"]
        if not message["success"]:
            raise Refused(str(output.get("error")))
        return [
            own for own, at in zip(output["data"], self.events[name]["outputs"], strict=True) if at not in self.stateful
        ]


async def _messages(stream: httpx.Response):
    """The messages of Gradio's stream, one JSON object to a line."""
    async for line in stream.aiter_lines():
        if line.startswith("data:"):
            yield json.loads(line[5:])
