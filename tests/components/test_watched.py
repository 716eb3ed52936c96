"""Which job a page watches: answers about an earlier one may come last, and must not end the watch of the new one."""

import threading
import time
from contextvars import copy_context
from types import SimpleNamespace

import pytest
from gradio.context import LocalContext

from components import job_panel, learn, pages
from components.job_panel import LAST_LOOK_S, begin, polled, stopped, watched
from components.jobs import REGISTRY
from components.pages import KEPT_PAGES, PAGES, Pages, in_turn, is_visit, session_hash, watch
from merging.errors import MergingError
from tests import cases


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
    PAGES.welcome("a page", None)
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


def test_what_is_put_off_begins_once_a_page_asks_how_far_it_is(monkeypatch):
    began = threading.Event()

    def prepare(*_: object, **__: object) -> None:
        began.set()
        raise MergingError("Enough of it.")

    monkeypatch.setattr(job_panel, "ASKED", threading.Event())
    monkeypatch.setattr(job_panel, "prepare", prepare)
    job = begin(cases.two_tasks(), put_off=True)
    assert not began.wait(0.5)
    polled(job.id)
    assert began.wait(30)


def test_programs_ask_about_any_of_their_jobs(end):
    first = REGISTRY.start("a program's first", lambda on_progress: end.wait(30))
    second = REGISTRY.start("a program's second", lambda on_progress: None)
    for job in (first, second):
        watched(job)
    assert [polled(job.id)[4] for job in (first, second)] == [first.id, second.id]


def test_another_panels_poll_is_answered_about_what_that_panel_watches(page, end):
    before = REGISTRY.start("measured before", lambda on_progress: None)
    assert before.run.ended.wait(30)
    now = REGISTRY.start("measured now", lambda on_progress: end.wait(30))
    watch("quality", now.id)
    assert learn.polled("quality", 0, before.id)[4] == now.id
    assert learn.polled("costs", 0, before.id)[4] == before.id  # nothing was begun there since the page was opened
    assert polled(before.id)[4] == ""


def test_a_panels_events_are_answered_one_after_the_other_each_pages_and_each_panels_own(page):
    PAGES.welcome("another page", None)
    began, end, order = threading.Event(), threading.Event(), []

    @in_turn("panel")
    def answered(name: str) -> None:
        if name == "first":
            began.set()
            end.wait(30)
        order.append(name)

    first = threading.Thread(target=copy_context().run, args=(answered, "first"))
    later = [threading.Thread(target=copy_context().run, args=(answered, f"later {number}")) for number in range(5)]
    first.start()
    assert began.wait(30)
    for number, thread in enumerate(later):  # in the order of asking
        thread.start()
        while len(PAGES._pages[session_hash()].turns["panel"]._asking) < number + 2:
            time.sleep(0.001)
    in_turn("another panel")(order.append)("another panel")
    LocalContext.request.set(SimpleNamespace(session_hash="another page"))
    answered("another page")
    end.set()
    for thread in (first, *later):
        thread.join()
    assert order == ["another panel", "another page", "first", *(f"later {number}" for number in range(5))]


def test_a_turn_that_is_long_in_coming_is_not_waited_for(page, monkeypatch):
    monkeypatch.setattr(pages, "LONGEST_WAIT_S", 0.01)
    held, end = threading.Event(), threading.Event()

    @in_turn("panel")
    def holds() -> None:
        held.set()
        end.wait(30)

    thread = threading.Thread(target=copy_context().run, args=(holds,))
    thread.start()
    assert held.wait(30)
    assert in_turn("panel")(lambda: "answered")() == "answered"
    end.set()
    thread.join()
    assert in_turn("panel")(lambda: "in turn again")() == "in turn again"


def test_the_pages_opened_longest_ago_are_forgotten_first():
    kept = Pages()
    for number in range(KEPT_PAGES + 1):
        kept.welcome(str(number), None)
        kept.watch(str(number), "panel", "own")
    assert [kept.watched(page, "panel", "asked") for page in ("0", "1", None)] == ["asked", "own", "asked"]
    assert kept.visit_of("0") == "0"
    assert is_visit(kept.visit_of("1"))
    assert kept.visit_of(None) is None
