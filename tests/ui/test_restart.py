"""A server that was killed in the middle of an estimate, and the one that follows it."""

import json
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch
from gradio_client import Client
from playwright.sync_api import expect
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

import merging
from components.pool_picker import EXAMPLES
from merging import prepare
from merging.recipe import EvaluationSettings, ModelEntry, Recipe
from merging.zoo import ZOO_FOLDER
from tests.cases import quick_recipe
from tests.ui.looking import chart_bars, open_page, open_tab
from tests.ui.server import serving
from tests.ui.test_client import WIDTH, form

WAIT_S = 120
MODELS = ("parity", "loop")


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> Recipe:
    """Two models whose Fishers take seconds: their tasks have as many rows as the page estimates from."""
    entries = []
    for name in MODELS:
        folder = tmp_path_factory.mktemp("tasks") / name
        folder.mkdir()
        task = merging.open_task(f"zoo:digits/{name}")
        for split in ("validation", "test"):
            task.rows(split).select(range(40)).to_parquet(folder / f"{split}.parquet")
        rows = task.rows("fisher")
        copies = datasets.concatenate_datasets([rows] * (EXAMPLES[1] // len(rows) + 1))
        copies.select(range(EXAMPLES[1])).to_parquet(folder / "fisher.parquet")
        about = (ZOO_FOLDER / "digits" / "tasks" / name / "task.yaml").read_text(encoding="utf-8").splitlines()
        (folder / "task.yaml").write_text("\n".join(line for line in about if not line.startswith("data:")))
        entries.append(ModelEntry(f"zoo:digits/{name}", str(folder), 0.5))
    recipe = replace(quick_recipe("four-tasks"), models=tuple(entries), evaluation=EvaluationSettings())
    return replace(recipe, fisher=replace(recipe.fisher, examples=EXAMPLES[1]))


def test_a_killed_server_says_what_was_lost_and_the_estimate_goes_on_to_the_same_numbers(
    browser, slow, tmp_path, monkeypatch
):
    path = tmp_path / "recipe.yaml"
    path.write_text(slow.to_yaml(), encoding="utf-8")
    with monkeypatch.context() as own:
        own.setenv("FISHER_CACHE_DIR", str(tmp_path / "uninterrupted"))
        prepare(slow)
    whole = {one.name: load_file(one) for one in (tmp_path / "uninterrupted").glob("*.safetensors")}
    assert len(whole) == len(MODELS)
    fishers, context = tmp_path / "fishers", browser.new_context(viewport={"width": 1280, "height": 1000})
    page = context.new_page()
    with serving(tmp_path / "page", FISHER_CACHE_DIR=str(fishers)) as first:
        port = first.url.rstrip("/").rpartition(":")[2]
        open_page(page, first.url)
        expect(page.locator("#progress")).to_contain_text("Ready")
        before = _entries(fishers)
        _open_recipe(page, path)
        state = _until(lambda: next((one for one in fishers.glob("*.state") if _examples(one) >= 256), None))
        first.process.kill()
        first.process.wait()
    saved = _examples(state)
    assert 0 < saved < EXAMPLES[1]
    assert not _entries(fishers) - before - {state.stem}, "no Fisher is there before it is whole"
    with serving(tmp_path / "again", FISHER_CACHE_DIR=str(fishers), GRADIO_SERVER_PORT=port) as second:
        # The page comes back by itself, and what it is told stays until it is closed.
        expect(page.locator(".toast-body", has_text="before your estimate of Fishers had ended")).to_be_visible(
            timeout=WAIT_S * 1000
        )
        chart_bars(page).first.wait_for()
        assert '"jobs_lost": 1' in second.log()
        _open_recipe(page, path)
        # Begun anew it would first save fewer examples than there were.
        seen = []
        while state.exists():
            seen.append(_examples(state))
            time.sleep(0.005)
        assert min(one for one in seen if one) >= saved
        # "Ready" may still be said of what the page showed before.
        _until(lambda: all((fishers / name).exists() for name in whole))
        expect(page.locator("#progress")).to_contain_text("Ready")
        second.require_alive()
        page.close()
    context.close()
    assert state.with_suffix(".safetensors").name in whole
    for name, fisher in whole.items():
        found = load_file(fishers / name)
        assert set(found) == set(fisher)
        assert all(torch.equal(found[parameter], fisher[parameter]) for parameter in fisher), name


def test_a_client_with_a_job_of_an_earlier_server_is_told(slow, tmp_path):
    fishers = tmp_path / "fishers"
    with serving(tmp_path / "page", FISHER_CACHE_DIR=str(fishers)) as first:
        client = Client(first.url, verbose=False)
        job_id = _estimate(client, slow)
        assert "role=" in str(client.predict(job_id, api_name="/progress"))
        first.process.kill()
        first.process.wait()
    with serving(tmp_path / "again", FISHER_CACHE_DIR=str(fishers)) as second:
        client = Client(second.url, verbose=False)
        for event in ("/progress", "/stop"):
            assert "before your estimate of Fishers had ended" in str(client.predict(job_id, api_name=event))
        opened = str(client.predict(WIDTH, "", "", job_id, *form(), api_name="/open_page"))
        assert "before your estimate of Fishers had ended" in opened
        assert "restarted" not in str(client.predict("0" * 32, api_name="/progress"))
        second.require_alive()


def test_health_answers_at_once_while_the_device_is_busy(slow, tmp_path):
    with serving(tmp_path / "page", HF_TOKEN="hf_abcdefghijklmnop") as server:
        client = Client(server.url, verbose=False)
        job_id = _estimate(client, slow)
        busy, told = [], _health(server.url)[1]
        while told["queue"] != {"waiting": 0, "running": 0}:
            seconds, told = _health(server.url)
            busy.append(seconds)
            time.sleep(0.05)
        assert "Ready" in str(client.predict(job_id, api_name="/progress"))
        assert len(busy) > 20
        assert sorted(busy)[len(busy) // 2] < 2  # not when the work ends
        assert set(told) == {"status", "version", "device", "queue", "memory", "uptime_s"}
        assert (told["status"], told["device"]) == ("ok", "cpu")
        assert told["memory"]["process_bytes"] > 100e6
        assert told["memory"]["free_bytes"] > 0
        assert 0 < told["uptime_s"] < 600
        for text in (json.dumps(told), server.log()):
            assert "hf_abcdefghijklmnop" not in text
            assert str(tmp_path) not in text
        lines = [json.loads(line) for line in server.log().splitlines() if line.startswith("{")]
        assert [line["event"] for line in lines if line["event"] == "started"] == ["started"]
        ended = [line for line in lines if line["event"] == "job_ended" and job_id[:8] in line["jobs"]]
        assert ended[0]["state"] == "done"
        assert set(ended[0]["timings"]) >= {"open", "fisher", "merge", "evaluate"}
        assert job_id not in server.log()
        server.require_alive()


def test_visitors_share_a_run_and_stop_only_their_own_part(slow, tmp_path):
    with serving(tmp_path / "page") as server:
        first, second, stranger = (Client(server.url, verbose=False) for _ in range(3))
        mine = _estimate(first, slow)
        theirs = _estimate(second, slow)
        assert mine != theirs
        assert _estimate(first, slow) == mine
        assert "Another visitor has asked" in str(first.predict(mine, api_name="/stop"))
        assert "Another visitor has asked" in str(stranger.predict(mine, api_name="/progress"))
        stranger.predict("0" * 32, api_name="/stop")
        ready = _until(
            lambda: (text := str(second.predict(theirs, api_name="/progress"))) and "place" not in text and text
        )
        assert "Stopped" not in ready
        _until(lambda: "Ready" in str(second.predict(theirs, api_name="/progress")))
        server.require_alive()


def test_a_visit_is_the_same_after_a_reload_and_so_is_its_job(slow, tmp_path):
    with serving(tmp_path / "page") as server:
        client = Client(server.url, verbose=False)
        visit = _id(client.predict(WIDTH, "", "", "", *form(), api_name="/open_page"))
        job_id = _estimate(client, slow)
        reloaded = Client(server.url, verbose=False)
        reloaded.predict(WIDTH, "", visit, "", *form(), api_name="/open_page")
        assert _estimate(reloaded, slow) == job_id
        other = Client(server.url, verbose=False)
        other.predict(WIDTH, "", "", "", *form(), api_name="/open_page")
        assert _estimate(other, slow) != job_id
        server.require_alive()


def _estimate(client: Client, recipe: Recipe) -> str:
    """Presses the button for a recipe; returns the job's id."""
    models = [f"{entry.checkpoint} => {entry.task}" for entry in recipe.models]
    values = form(models=models, examples=recipe.fisher.examples, device="cpu")
    return _id(client.predict(*values, api_name="/estimate_fisher"))


def _id(answer: tuple[object, ...]) -> str:
    return next(value for value in answer if isinstance(value, str) and len(value) == 32)


def _open_recipe(page, path: Path) -> None:
    open_tab(page, "Export")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a recipe").click()
    chooser.value.set_files(path)


def _entries(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.safetensors")}


def _examples(state: Path) -> int:
    """How many examples an unfinished estimate has saved; 0 where there is none."""
    try:
        with safe_open(state, framework="pt") as file:
            return json.loads(file.metadata()["state"])["examples"]
    except (OSError, SafetensorError, RuntimeError):  # the last is torch's about a file that has gone
        return 0


def _health(url: str) -> tuple[float, dict[str, object]]:
    begun = time.monotonic()
    with urllib.request.urlopen(f"{url}health", timeout=30) as answer:
        assert answer.status == 200
        told = json.load(answer)
    return time.monotonic() - begun, told


def _until(found: Callable[[], object]) -> object:
    deadline = time.monotonic() + WAIT_S
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value
