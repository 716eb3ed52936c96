"""`/health`, beside a page that Gradio serves; tests/ui/test_restart.py asks a busy server."""

import threading

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from components import health as module
from components.health import free_bytes, health, routes, version
from components.jobs import REGISTRY


@pytest.fixture
def client():
    return TestClient(Starlette(routes=routes()))


def test_it_answers_get_and_head_and_nothing_else(client):
    answer = client.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"
    assert answer.headers["cache-control"] == "no-store"
    assert client.head("/health").status_code == 200
    assert client.post("/health").status_code == 405


def test_it_counts_what_waits_and_runs(client):
    go_on, begun = threading.Event(), threading.Event()

    def work(on_progress):
        begun.set()
        go_on.wait(60)

    jobs = [REGISTRY.start(f"health {number}", work) for number in range(3)]
    try:
        assert begun.wait(60)
        assert client.get("/health").json()["queue"] == {"waiting": 2, "running": 1}
    finally:
        go_on.set()
    assert all(job.run.ended.wait(60) for job in jobs)
    assert client.get("/health").json()["queue"] == {"waiting": 0, "running": 0}


def test_it_tells_the_projects_version_and_no_names():
    assert version().split(".")[0].isdigit()
    told = health()
    assert told["version"] == version()
    assert not any("/" in str(value) for value in told.values())


@pytest.mark.parametrize(
    ("limit", "taken", "expected"),
    [("5000", "2000", 3000), ("2000", "5000", 0), ("max", "2000", None), ("", "", None), ("9" * 25, "0", None)],
)
def test_a_containers_own_limit_counts_where_it_is_less(tmp_path, monkeypatch, limit, taken, expected):
    for name, text in (("limit", limit), ("taken", taken)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(module, "CONTAINER", ((tmp_path / "limit", tmp_path / "taken"), (tmp_path / "no", tmp_path)))
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: type("Memory", (), {"available": 7000})())
    assert free_bytes() == (7000 if expected is None else expected)


def test_a_project_file_that_is_not_there_leaves_the_version_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PROJECT", tmp_path / "pyproject.toml")
    assert version() == "unknown"
