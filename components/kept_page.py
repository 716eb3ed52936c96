"""The page itself, made once for each address that it is asked for by.

Gradio makes it anew for everyone who opens it: 0.2 s of Python, most of it for examples of its API, in which nobody else is
answered. What is in it depends on the address alone: values of widgets come later, by events.
"""

from collections import OrderedDict
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What decides the address, and with it every link in the page.
ADDRESS = ("host", "x-forwarded-host", "x-forwarded-proto", "x-gradio-server")
LONGEST_HEADER = 300
# Of a query all that Gradio reads before it answers; the rest is read by scripts in the page.
READ = {"page", "deep_link", "all_endpoints"}
MOST_PAGES, MOST_BYTES = 8, 4 * 2**20


class KeptPage:
    """Answers GET / from memory, once it has been answered with 200 and without a cookie, whatever the query of a link."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._kept: OrderedDict[tuple, list[Message]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything else on."""
        key = _key(scope)
        if key is None:
            await self._app(scope, receive, send)
            return
        if key in self._kept:
            self._kept.move_to_end(key)
            for message in self._kept[key]:
                await send(dict(message))  # what stands further out adds headers of its own for each visitor
            return
        seen: list[Message] = []

        async def noted(message: Message) -> None:
            seen.append(message)
            await send(dict(message))

        await self._app(scope, receive, noted)
        if _is_whole(seen):
            self._kept[key] = seen
            while len(self._kept) > MOST_PAGES:
                self._kept.popitem(last=False)


def _key(scope: Scope) -> tuple | None:
    """Everything that the page depends on; None for what is not the page."""
    if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
        return None
    if READ & parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True).keys():
        return None
    headers = Headers(scope=scope)
    address = tuple(headers.get(name, "") for name in ADDRESS)
    if any(len(part) > LONGEST_HEADER for part in address):
        return None
    return (scope["scheme"], scope.get("root_path", ""), "gzip" in headers.get("accept-encoding", ""), *address)


def _is_whole(messages: list[Message]) -> bool:
    if not messages or messages[0]["type"] != "http.response.start" or messages[0]["status"] != 200:
        return False
    names = {name.lower() for name, _ in messages[0]["headers"]}
    size = sum(len(message.get("body", b"")) for message in messages[1:])
    return b"set-cookie" not in names and not messages[-1].get("more_body", False) and 0 < size <= MOST_BYTES
