"""Gradio's scripts and styles as the studio serves them."""

import gzip

import pytest
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from components import assets


@pytest.fixture(scope="module")
def client():
    """The routes beside a page, with what names the library of charts in its header."""
    page = Route("/", lambda request: PlainTextResponse("page"))
    return TestClient(Starlette(routes=[*assets.routes(), page], middleware=[Middleware(assets.Preload)]))


def test_what_is_served_is_the_file_packed_or_plain_and_kept_for_ever(client):
    for path in sorted(assets.ASSETS.glob("index-*.*s")):
        for packing in ("gzip", "identity"):
            with client.stream("GET", f"/assets/{path.name}", headers={"Accept-Encoding": packing}) as answer:
                body = b"".join(answer.iter_raw())
            assert answer.headers.get("content-encoding", "identity") == packing
            assert (gzip.decompress(body) if packing == "gzip" else body) == path.read_bytes()
            assert "immutable" in answer.headers["cache-control"]
            assert answer.headers["content-type"].startswith(assets.TYPES[path.suffix])


@pytest.mark.parametrize("name", ["nothing.js", "..%2Findex.html.js", "%2e%2e/%2e%2e/package.js", "a/b.css"])
def test_what_is_no_such_file_is_not_found(client, name):
    assert client.get(f"/assets/{name}").status_code == 404


def test_the_page_and_nothing_else_names_the_library_of_charts_which_is_there(client):
    link = client.get("/").headers["link"]
    name = link.partition("<./")[2].partition(">")[0]
    assert "rel=modulepreload" in link
    assert b"plotly" in client.get(f"/{name}").content
    assert "link" not in client.get(f"/{name}").headers


@pytest.mark.parametrize(
    ("asked", "is_packed"),
    [("gzip, br", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.0", False), ("identity", False)],
)
def test_who_refuses_a_packing_gets_none(asked, is_packed):
    assert assets.takes_gzip(Headers({"accept-encoding": asked})) is is_packed
