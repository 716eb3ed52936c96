"""`/health`: whether the server answers, and what it is busy with, for whoever keeps it running."""

import time
import tomllib
from functools import lru_cache
from pathlib import Path

import psutil
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from components.jobs import REGISTRY
from merging.devices import resolve_device

ADDRESS = "/health"
STARTED_S = time.monotonic()
PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
# Where a container's kernel tells how much memory it may have and has; version 2 of control groups, then version 1.
CONTAINER = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)


def routes() -> list[Route]:
    """The route, for `launch(app_kwargs={"routes": routes()})`: it stands before Gradio's own."""
    told_once()  # looking for a device takes its time, which no visitor of the route shall wait

    async def answer(request: Request) -> JSONResponse:
        return JSONResponse(health(), headers={"Cache-Control": "no-store"})

    return [Route(ADDRESS, answer, methods=["GET"])]


def health() -> dict[str, object]:
    """Status, version, device, queue, memory in bytes, and seconds since the start: no names, no paths."""
    return {
        "status": "ok",
        **told_once(),
        "queue": REGISTRY.counts(),
        "memory": {"process_bytes": psutil.Process().memory_info().rss, "free_bytes": free_bytes()},
        "uptime_s": round(time.monotonic() - STARTED_S, 1),
    }


@lru_cache(maxsize=1)
def told_once() -> dict[str, str]:
    """What does not change while the server lives: the studio's version, and the device that `auto` stands for."""
    return {"version": version(), "device": resolve_device("auto")}


def version() -> str:
    """The studio's version; `unknown` where its project file was left behind."""
    try:
        return tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"]
    except (OSError, ValueError, KeyError):
        return "unknown"


def free_bytes() -> int:
    """Memory that can still be taken: the machine's, or what a container has left of its own where that is less."""
    free = psutil.virtual_memory().available
    for limit, taken in CONTAINER:
        try:
            free = min(free, max(0, int(limit.read_text()) - int(taken.read_text())))
        except (OSError, ValueError):  # none, or "max"
            continue
    return free
