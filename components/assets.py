"""Gradio's own scripts and styles: packed once, kept by browsers, and the slowest of them asked for first.

Gradio packs each anew for everyone who asks, in the thread that answers everybody, and browsers ask again at every visit.
Their names hold a digest of what is in them: under such a name nothing ever changes.
"""

import gzip
import re
import threading
from functools import lru_cache
from pathlib import Path

import gradio
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ASSETS = Path(gradio.__file__).parent / "templates" / "frontend" / "assets"
TYPES = {".js": "text/javascript", ".css": "text/css"}
HEADERS = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
# Less gains nothing from being packed.
SMALLEST_BYTES = 400
LEVEL = 6
CHARTS = "PlotlyPlot-*.js"
REFUSED = re.compile(r";q=0(\.0*)?$")


def routes() -> list[Route]:
    """The routes, for `launch(app_kwargs={"routes": routes()})`: they stand before Gradio's own."""
    names = {path.name for path in ASSETS.glob("*") if path.suffix in TYPES}
    for name in _charts():  # the largest by far: before anybody asks for it
        threading.Thread(target=_read, args=(name,), kwargs={"is_packed": True}, daemon=True).start()

    async def answer(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        if name not in names:
            return Response(status_code=404)
        is_packed = takes_gzip(request.headers)
        body, packing = await run_in_threadpool(_read, name, is_packed=is_packed)
        return Response(body, media_type=TYPES[Path(name).suffix], headers=HEADERS | packing)

    return [Route(f"/assets/{{name}}{suffix}", answer, methods=["GET"]) for suffix in TYPES]


class Preload:
    """Names the library of charts in the page's header: it is loaded and read beside the page's beginning, not after it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._link = ", ".join(f"<./assets/{name}>; rel=modulepreload; fetchpriority=low" for name in _charts())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Adds to the page's answer, and to no other."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                MutableHeaders(scope=message).append("Link", self._link)
            await send(message)

        is_page = self._link and scope["type"] == "http" and scope["path"] == "/"
        await self._app(scope, receive, told if is_page else send)


def takes_gzip(headers: Headers) -> bool:
    """Whether a request may be answered packed."""
    asked = [part.replace(" ", "").lower() for part in headers.get("accept-encoding", "").split(",")]
    return any(part.split(";")[0] == "gzip" and not REFUSED.search(part) for part in asked)


def _charts() -> list[str]:
    return sorted(path.name for path in ASSETS.glob(CHARTS))


@lru_cache(maxsize=2048)
def _read(name: str, *, is_packed: bool) -> tuple[bytes, dict[str, str]]:
    body = (ASSETS / name).read_bytes()
    if not is_packed or len(body) < SMALLEST_BYTES:
        return body, {}
    return gzip.compress(body, LEVEL, mtime=0), {"Content-Encoding": "gzip"}
