"""Jobs: watched, joined, stopped, forgotten."""

import threading

import pytest

from components import jobs
from components.job_panel import progress_html
from components.jobs import Registry
from merging.errors import FisherError

WAIT_S = 60


class Work:
    """Work that reports when it is told to, so that a test decides what happens when."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, on_progress):
        on_progress(0.25, "quarter")
        self.begun.set()
        assert self.go_on.wait(WAIT_S)
        on_progress(0.5, "half")
        return "result"


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def work():
    """Work that goes on at the latest when the test ends."""
    own = Work()
    yield own
    own.go_on.set()


def _ended(registry: Registry, job: jobs.Job) -> jobs.Job:
    """Waits for a job: the device takes one at a time, so a later job runs only then."""
    if job.active:
        after = threading.Event()
        registry.start(f"after {job.id}", lambda on_progress: after.set())
        assert after.wait(WAIT_S)
    assert not job.active
    return job


def test_a_job_reports_and_ends_with_its_result(registry, work):
    job = registry.start("key", work)
    assert work.begun.wait(WAIT_S)
    assert (job.state, job.fraction, job.text) == ("running", 0.25, "quarter")
    assert registry.get(job.id) is job
    work.go_on.set()
    _ended(registry, job)
    assert (job.state, job.fraction, job.result) == ("done", 1.0, "result")


def test_a_stop_ends_the_work_at_its_next_report(registry, work):
    job = registry.start("key", work)
    assert work.begun.wait(WAIT_S)
    assert registry.stop(job.id) is job
    assert job.active
    assert "stopping" in progress_html(job)
    work.go_on.set()
    assert _ended(registry, job).state == "stopped"
    assert job.result is None
    assert job.message.startswith("Stopped")


def test_a_job_that_waits_is_stopped_before_it_begins(registry, work):
    registry.start("first", work)
    second_work = Work()
    second = registry.start("second", second_work)
    assert second.state == "waiting"
    assert "waiting for the device" in progress_html(second)
    registry.stop(second.id)
    work.go_on.set()
    assert _ended(registry, second).state == "stopped"
    assert not second_work.begun.is_set()


def test_equal_keys_share_one_job_until_it_ends_or_is_stopped(registry, work):
    job = registry.start("key", work)
    assert registry.start("key", Work()) is job
    assert registry.start("other", lambda on_progress: None) is not job
    registry.stop(job.id)
    again = registry.start("key", lambda on_progress: None)
    assert again is not job
    work.go_on.set()
    assert _ended(registry, again).state == "done"
    assert registry.start("key", lambda on_progress: None) is not again


def test_a_failure_keeps_its_message_and_a_bug_its_secrets(registry, caplog):
    def fail(on_progress):
        raise FisherError("expected <b>, got </b>")

    def break_down(on_progress):
        raise ValueError("secret path")

    failed = _ended(registry, registry.start("a", fail))
    assert (failed.state, failed.message) == ("failed", "expected <b>, got </b>")
    assert "<b>" not in progress_html(failed)
    broken = _ended(registry, registry.start("b", break_down))
    assert broken.state == "failed"
    assert "secret" not in broken.message
    assert "secret path" in caplog.text


def test_a_failure_does_not_keep_the_next_job_from_the_device(registry):
    def fail(on_progress):
        raise ValueError("bug")

    registry.start("a", fail)
    assert _ended(registry, registry.start("b", lambda on_progress: 7)).result == 7


def test_ended_jobs_expire_and_active_ones_do_not(registry, work, monkeypatch):
    old = _ended(registry, registry.start("old", lambda on_progress: None))
    active = registry.start("active", work)
    assert registry.get(old.id) is old
    monkeypatch.setattr(jobs, "KEPT_S", -1.0)
    registry.start("new", lambda on_progress: None)
    assert registry.get(old.id) is None
    assert registry.get(active.id) is active


def test_no_more_than_so_many_ended_jobs_are_kept(registry, monkeypatch):
    monkeypatch.setattr(jobs, "KEPT_JOBS", 4)
    for number in range(12):
        _ended(registry, registry.start(str(number), lambda on_progress: None))
    assert len(registry._jobs) <= 4 + 1


@pytest.mark.parametrize("unknown", [None, "", "0" * 32])
def test_an_unknown_job_is_nothing_to_get_or_stop(registry, unknown):
    assert registry.get(unknown) is None
    assert registry.stop(unknown) is None


def test_time_to_go_follows_the_pace_so_far(monkeypatch):
    monkeypatch.setattr(jobs.time, "monotonic", lambda: 110.0)
    job = jobs.Job(id="a", key="a", state="running", fraction=0.25, started_s=100.0)
    assert job.remaining_s() == pytest.approx(30.0)
    assert "about 30 s to go" in progress_html(job)
    job.fraction = 0.0
    assert job.remaining_s() is None
    assert "to go" not in progress_html(job)


def test_progress_is_a_progress_bar_with_its_value():
    job = jobs.Job(id="a", key="a", state="running", fraction=0.5, text="<i>half</i>", started_s=0.0)
    assert 'role="progressbar"' in progress_html(job)
    assert 'aria-valuenow="50"' in progress_html(job)
    assert "<i>" not in progress_html(job)
