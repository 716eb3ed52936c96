"""Which job a page watches: answers about an earlier one may come last, and must not end the watch of the new one."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.context import LocalContext

from components.actions import link_shown
from components.job_panel import LAST_LOOK_S, polled, stopped, watched
from components.jobs import ESTIMATE, REGISTRY
from components.latest import KEPT_SESSIONS, WATCHED, Watched
from components.score_charts import ESTIMATING, NOT_PREPARED
from merging.pools import open_pool
from merging.recipe import FisherSettings, preset_recipe
from tests.benchmarks.slider import form_values


@pytest.fixture
def end():
    """Lets the work of a test's jobs end, at the latest with the test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def page():
    """The events of this test come from a page that was opened."""
    before = LocalContext.request.get(None)
    LocalContext.request.set(SimpleNamespace(session_hash="a page"))
    WATCHED.opened("a page")
    yield
    LocalContext.request.set(before)


def timer_and_job(panel):
    return panel[3].active, panel[4]


def test_a_poll_about_the_job_before_is_answered_about_the_one_that_is_watched(page, end):
    before = REGISTRY.start("watched before", lambda on_progress: None)
    assert before.run.ended.wait(30)
    watched(before)
    now = REGISTRY.start("watched now", lambda on_progress: end.wait(30))
    assert timer_and_job(watched(now)) == (True, now.id)
    assert timer_and_job(polled(before.id)) == (True, now.id)
    assert timer_and_job(polled("")) == (True, now.id)
    stopped(before.id)
    assert now.asked_to_stop.is_set()


def test_a_page_asks_once_more_after_the_end_and_then_no_longer(page, monkeypatch):
    job = REGISTRY.start("watched to its end", lambda on_progress: None)
    assert job.run.ended.wait(30)
    watched(job)
    assert timer_and_job(polled(job.id)) == (True, job.id)
    job.run.ended_s -= LAST_LOOK_S
    assert timer_and_job(polled(job.id)) == (False, job.id)


def test_programs_ask_about_any_of_their_jobs(end):
    first = REGISTRY.start("a program's first", lambda on_progress: end.wait(30))
    second = REGISTRY.start("a program's second", lambda on_progress: None)
    for job in (first, second):
        watched(job)
    assert [polled(job.id)[4] for job in (first, second)] == [first.id, second.id]


def test_the_pages_opened_longest_ago_are_forgotten_first():
    pages = Watched()
    for number in range(KEPT_SESSIONS + 1):
        pages.opened(str(number))
        pages.give(str(number), "own")
    assert [pages.of("0", "asked"), pages.of("1", "asked"), pages.of(None, "asked")] == ["asked", "own", "asked"]


def test_a_link_whose_widgets_came_late_is_estimated_after_all(page):
    late = preset_recipe(open_pool("digits"), "four-tasks")
    late = replace(late, fisher=FisherSettings(examples=16, seed=8151))
    values = form_values(late, list(late.weights))
    picture, panel = link_shown(1200, *values)[:5], link_shown(1200, *values)[5:]
    assert ESTIMATING in picture[0] or NOT_PREPARED in picture[0]
    job = REGISTRY.get(panel[4])
    assert job.kind == ESTIMATE
    assert job.run.ended.wait(120)
    assert job.state == "done", job.message
    picture, panel = link_shown(1200, *values)[:5], link_shown(1200, *values)[5:]
    assert "Fisher merge" in picture[1]
    assert panel == [gr.skip()] * 6  # the page goes on watching what it watched: its end redraws the picture
