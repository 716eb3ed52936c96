"""The page is made once for each address, and nothing else is kept."""

import pytest
from gradio.route_utils import CustomCORSMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from components import kept_page
from components.kept_page import KeptPage


@pytest.fixture
def made():
    """How often the page was made."""
    return []


@pytest.fixture
def client(made):
    """A page that says where it is asked for and how often it was made, and one that fails or sets a cookie when asked to."""

    def page(request):
        made.append(request.headers["host"])
        answer = PlainTextResponse(
            f"{request.headers['host']} {len(made)} " + "x" * 2000, status_code=500 if "fail" in made else 200
        )
        if "cookie" in made:
            answer.set_cookie("who", "me")
        return answer

    middleware = [Middleware(KeptPage), Middleware(GZipMiddleware, minimum_size=100)]
    return TestClient(Starlette(routes=[Route("/", page, methods=["GET", "HEAD"])], middleware=middleware))


def test_the_page_is_made_once_and_the_same_packed_or_plain(client, made):
    texts = {
        client.get("/", headers={"accept-encoding": packing}).text
        for packing in ("gzip", "gzip", "identity", "identity")
    }
    assert len(made) == 2
    assert {text.split()[0] for text in texts} == {"testserver"}
    assert client.get("/", headers={"accept-encoding": "gzip"}).headers["content-encoding"] == "gzip"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "other"},
        {"x-forwarded-host": "other"},
        {"x-forwarded-proto": "https"},
        {"x-gradio-server": "http://other"},
    ],
)
def test_another_address_is_another_page(client, made, headers):
    client.get("/")
    client.get("/", headers=headers)
    assert len(made) == 2
    client.get("/", headers=headers)
    assert len(made) == 2


def test_a_query_another_method_failures_and_cookies_are_not_kept(client, made):
    for _ in range(2):
        client.get("/?deep_link=abc")
        client.head("/")
    assert len(made) == 4
    made.append("fail")
    assert [client.get("/").status_code for _ in range(2)] == [500, 500]
    made.remove("fail")
    made.append("cookie")
    assert [client.get("/").headers["set-cookie"].split(";")[0] for _ in range(2)] == ["who=me", "who=me"]


def test_a_links_query_is_for_scripts_in_the_page_and_changes_nothing(client, made):
    texts = {client.get(f"/{query}").text for query in ("", "?__theme=dark", "?recipe=abc&tab=learn", "?__sign=x")}
    assert len(made) == len(texts) == 1
    client.get("/?page=other&all_endpoints=1")
    assert len(made) == 2


def test_headers_that_one_visitor_is_answered_with_are_no_others(made):
    """Gradio's CORS, which stands further out, writes into the headers of the answer that it passes on."""
    page = Route("/", lambda request: PlainTextResponse("page"))
    middleware = [Middleware(CustomCORSMiddleware), Middleware(KeptPage)]
    client = TestClient(Starlette(routes=[page], middleware=middleware), base_url="http://localhost")
    plain = dict(client.get("/").headers)
    for _ in range(3):
        assert "access-control-allow-origin" in client.get("/", headers={"origin": "http://localhost:1234"}).headers
    assert dict(client.get("/").headers) == plain


def test_who_invents_addresses_does_not_fill_the_memory(client, made):
    for number in range(3 * kept_page.MOST_PAGES):
        client.get("/", headers={"host": f"host-{number}"})
    (kept,) = [layer for layer in _layers(client.app.middleware_stack) if isinstance(layer, KeptPage)]
    assert len(kept._kept) == kept_page.MOST_PAGES
    client.get("/", headers={"host": "h" * 1000})
    assert len(kept._kept) == kept_page.MOST_PAGES
    assert not any("h" * 1000 in str(key) for key in kept._kept)


def _layers(layer):
    while layer is not None:
        yield layer
        layer = getattr(layer, "app", None) or getattr(layer, "_app", None)
