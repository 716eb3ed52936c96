"""Pages that open under bad circumstances: nothing to write to, strangers before them."""

import time

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from tests.cases import quick_recipe
from tests.ui.looking import press
from tests.ui.server import serving
from tests.ui.test_client import FORM, MODELS, WEIGHTS, form


@pytest.fixture(scope="module")
def hosted(server, tmp_path_factory):
    """The page as on a Space; it shares the Fishers of the page that the other tests see."""
    fishers = str(server.log_path.parent / "fishers")
    with serving(tmp_path_factory.mktemp("hosted"), SPACE_ID="somebody/studio", FISHER_CACHE_DIR=fishers) as running:
        yield running
        running.require_alive()


def test_the_page_opens_where_the_cache_cannot_be_written(new_page, tmp_path):
    wall = tmp_path / "file"
    wall.write_text("no folder", encoding="utf-8")
    with serving(tmp_path / "page", FISHER_CACHE_DIR=str(wall / "cache")) as server:
        page = new_page(server.url)
        page.goto(server.url, wait_until="domcontentloaded")
        for _ in range(2):  # what opening started, and what the button starts
            alert = page.locator("#progress [role=alert]")
            expect(alert).to_contain_text("The Fisher cache cannot be written: expected a folder with free space")
            expect(alert).to_contain_text("FISHER_CACHE_DIR")
            press(page, "Estimate Fisher")
        page.close()  # before its server, which it would miss
        server.require_alive()
    assert wall.read_text(encoding="utf-8") == "no folder"


def test_a_space_serves_the_embedded_pool(hosted):
    client = Client(hosted.url, verbose=False)
    client.predict(1200.0, "", "", "", *form(), api_name="/open_page")
    deadline = time.monotonic() + 120
    while "Fisher merge" not in (answer := str(client.predict(1200.0, *form(), api_name="/merge"))):
        assert time.monotonic() < deadline, answer[:500]
        client.predict(*form(), api_name="/estimate_fisher")


@pytest.mark.parametrize("event", ["/choose_pool", "/choose_preset"])
def test_a_space_opens_no_folder_as_a_pool(hosted, pool_folder, event):
    client = Client(hosted.url, verbose=False)
    for name in (str(pool_folder), "merging", "../digits", "~"):
        values = [name] if event == "/choose_pool" else [name, "robust"]
        answer = _told(client, event, values)
        assert "choices" in answer or "expected an embedded one" in answer, answer[:500]
        assert "λ · parity" not in answer
    hosted.require_alive()


def test_a_space_opens_no_folder_as_a_base_or_a_model(hosted, pool_folder):
    client = Client(hosted.url, verbose=False)
    folder = str(pool_folder / "checkpoints" / "parity")
    answer = _told(client, "/estimate_fisher", form(base=folder))
    assert "expected an embedded checkpoint" in answer
    answer = _told(client, "/estimate_fisher", form(models=[f"{folder} => zoo:digits/parity", *MODELS[1:]]))
    assert "choices" in answer or "expected an embedded checkpoint" in answer
    hosted.require_alive()


def test_a_space_refuses_recipes_with_folders_and_opens_others(hosted, pool_folder, tmp_path):
    client = Client(hosted.url, verbose=False)
    text = quick_recipe("four-tasks").to_yaml()
    path = tmp_path / "recipe.yaml"
    for own in (text, text.replace("base: zoo:digits/base", f"base: {pool_folder}/checkpoints/base")):
        path.write_text(own.replace("task: zoo:digits/loop", f"task: {pool_folder}/tasks/loop"), encoding="utf-8")
        answer = _told(client, "/open_recipe", [handle_file(str(path)), "digits"])
        assert "expected an embedded checkpoint or task" in answer
    path.write_text(text, encoding="utf-8")
    assert "The recipe is open" in _told(client, "/open_recipe", [handle_file(str(path)), "digits"])
    hosted.require_alive()


def test_the_form_of_these_tests_is_the_pages():
    from components.form import Form

    assert Form.of(*FORM, *WEIGHTS) == Form(*FORM, weights=tuple(WEIGHTS))


def _told(client: Client, event: str, values: list[object]) -> str:
    try:
        return str(client.predict(*values, api_name=event))
    except AppError as refusal:
        return str(refusal)
