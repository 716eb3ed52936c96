"""A Space where visitors sign in: the merged model is pushed in their own name, and their token stays nowhere."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from components.links import link_query
from merging.recipe import FisherSettings, ModelEntry, Recipe
from merging.zoo import ZOO_FOLDER
from tests.loopback_hub import loopback_hub
from tests.openid import provider
from tests.ui.looking import open_page, open_tab, press
from tests.ui.server import serving

PERSON, TOKEN = "tester", "hf_tester"


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """The Hub that is pushed to."""
    with loopback_hub(tmp_path_factory.mktemp("hub")) as running:
        yield running


@pytest.fixture(scope="module")
def space(hub, tmp_path_factory):
    """The page as a Space with `hf_oauth: true`."""
    folder = tmp_path_factory.mktemp("space")
    _install_spaces(folder / "packages")
    with provider(PERSON, TOKEN) as login:
        own = {"SYSTEM": "spaces", "SPACE_ID": "somebody/studio", "HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
        own |= {"HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        own["PYTHONPATH"] = str(folder / "packages")
        with serving(folder, **own, **login.environment()) as running:
            yield running
            running.require_alive()


def _install_spaces(folder: Path) -> None:
    """In place of the package of that name, which every Space has, and by which Gradio reloads changed code there."""
    (folder / "spaces").mkdir(parents=True)
    (folder / "spaces" / "__init__.py").write_text("def gradio_auto_wrap(answer):\n    return answer\n")
    (folder / "spaces" / "reloading.py").write_text("def start_reload_server(**asked):\n    pass\n")
    described = folder / "spaces-0.51.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: spaces\nVersion: 0.51.0\n")


@pytest.fixture
def visitor(browser):
    """Makes a page with cookies of its own; on a Space, Gradio's page also looks at Hugging Face's."""
    contexts = []

    def make():
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 1000}))
        page = contexts[-1].new_page()
        page.set_default_timeout(60_000)
        return page

    yield make
    for context in contexts:
        context.close()


def _push_panel(page, space) -> None:
    open_page(page, space.url)
    open_tab(page, "Export")
    page.get_by_role("button", name="Push to the Hugging Face Hub").click()
    expect(page.get_by_role("textbox", name="Repository")).to_be_visible()


def _pushed(page, repository: str) -> None:
    page.get_by_role("textbox", name="Repository").fill(repository)
    press(page, "Push to Hub")


def test_whoever_has_signed_in_pushes_in_their_own_name_and_nobody_else_does(visitor, space, hub):
    page = visitor()
    _push_panel(page, space)
    expect(page.get_by_role("textbox", name="Token")).to_have_count(0)
    _pushed(page, f"{PERSON}/merged")
    expect(page.locator("#push-notice")).to_contain_text("expected you to be signed in")
    assert not hub.repositories

    with page.expect_navigation(wait_until="domcontentloaded"):
        page.get_by_role("button", name="Sign in with Hugging Face").click()
    expect(page.locator("#shares")).to_contain_text("normalised λ")
    open_tab(page, "Export")
    page.get_by_role("button", name="Push to the Hugging Face Hub").click()
    expect(page.get_by_role("button", name=f"Sign out ({PERSON})", exact=False)).to_be_visible()
    _pushed(page, f"{PERSON}/merged")
    expect(page.locator("#push-notice")).to_contain_text(f"The merged model is at {hub.endpoint}/{PERSON}/merged")
    repository = hub.repositories["model", f"{PERSON}/merged"]
    assert repository.is_private
    assert "model.safetensors" in {file["path"] for file in repository.files(repository.refs["main"])}

    kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, window.gradio_config])")
    assert TOKEN not in kept + page.content() + space.log()
    cookies = page.context.cookies()
    assert [cookie["httpOnly"] for cookie in cookies if cookie["name"] == "session"] == [True]

    _pushed(page, "another/merged")
    expect(page.locator("#push-notice [role=alert]")).to_contain_text("another/merged")
    assert ("model", "another/merged") not in hub.repositories

    stranger = visitor()
    _push_panel(stranger, space)
    _pushed(stranger, f"{PERSON}/merged")
    expect(stranger.locator("#push-notice")).to_contain_text("expected you to be signed in")


def _estimated(page, address: str) -> None:
    """Opens a link to private models, which begins nothing, and asks for their estimate."""
    page.goto(address, wait_until="domcontentloaded")
    expect(page.locator("#shares")).to_contain_text("secret-parity")
    press(page, "Estimate Fisher")


def test_private_checkpoints_are_merged_by_their_readers_and_seen_by_nobody_else(visitor, space, hub):
    own = {"is_private": True, "readers": {PERSON}}
    for name in ("parity", "loop"):
        hub.add(f"lab/secret-{name}", ZOO_FOLDER / "digits" / "checkpoints" / name, **own)
    models = [ModelEntry(f"lab/secret-{name}", f"zoo:digits/{name}", 0.5) for name in ("parity", "loop")]
    recipe = Recipe(models=tuple(models), fisher=FisherSettings(examples=16))
    address = space.url + link_query(recipe).removeprefix("/")

    stranger = visitor()
    _estimated(stranger, address)
    expect(stranger.locator("#progress")).to_contain_text("press “Sign in with Hugging Face”")

    reader = visitor()
    open_page(reader, space.url)
    reader.get_by_role("button", name="Add a model of your own").click()
    with reader.expect_navigation(wait_until="domcontentloaded"):
        reader.get_by_role("button", name="Sign in with Hugging Face").click()
    expect(reader.locator("#shares")).to_contain_text("normalised λ")
    _estimated(reader, address)
    expect(reader.locator("#progress")).to_contain_text("Ready")
    expect(reader.locator("#score-table")).to_contain_text("loop")
    expect(reader.locator("#score-table")).not_to_contain_text("large")

    # The models are here now, prepared and downloaded; with the Hub away nobody could be asked whose they are.
    _estimated(stranger, address)
    expect(stranger.locator("#progress")).to_contain_text("press “Sign in with Hugging Face”")
    assert "Fisher merge" not in stranger.locator("#score-table").inner_text()
    hub.is_down = True
    try:
        _estimated(stranger, address)
        expect(stranger.locator("#progress [role=alert]")).to_contain_text("cannot be had")
        assert "Fisher merge" not in stranger.locator("#score-table").inner_text()
    finally:
        hub.is_down = False
    assert TOKEN not in space.log()


def test_a_token_that_is_sent_along_is_not_used(visitor, space, hub):
    from gradio_client import Client

    from tests.ui.test_client import form

    client = Client(space.url, verbose=False)
    before = set(hub.repositories)
    told, token = client.predict(f"{PERSON}/other", TOKEN, True, *form(), api_name="/push_to_hub")
    assert "expected you to be signed in" in json.dumps(told, ensure_ascii=False)
    assert (token, set(hub.repositories)) == ("", before)
