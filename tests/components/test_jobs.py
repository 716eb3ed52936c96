"""Jobs: watched, joined, stopped, forgotten."""

import threading
import time

import pytest

from components import jobs
from components.job_panel import EVALUATING, Estimated, begin, progress_html, watched
from components.jobs import Registry
from components.runs import LEFT, Job, Run
from components.store import STORE
from merging.errors import CacheError, FisherError
from merging.recipe import EvaluationSettings, FisherSettings
from tests.cases import quick_recipe

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


def _ended(registry: Registry, job: Job) -> Job:
    assert job.run.ended.wait(WAIT_S)
    assert not job.active
    return job


def _settle(registry: Registry) -> None:
    """Until a job that began later has run: what came before it has also been logged."""
    _ended(registry, registry.start("settle", lambda on_progress: None))


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
    registry.stop(second.id)
    assert second.state == "stopped", "at once, not when its turn has come"
    work.go_on.set()
    after = registry.start("third", lambda on_progress: None)
    assert _ended(registry, after).state == "done"
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
    with caplog.at_level("INFO", "studio"):
        broken = _ended(registry, registry.start("b", break_down))
        _settle(registry)
    assert broken.state == "failed"
    assert "secret" not in broken.message
    (line,) = [line for line in caplog.records if line.levelname == "ERROR"]
    assert line.message == "job_ended"
    assert line.fields["error"] == "ValueError"
    assert "break_down" in line.fields["at"][-1]


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
    monkeypatch.setattr(time, "monotonic", lambda: 110.0)
    job = Job("a", Run("a", state="running", fraction=0.25, started_s=100.0))
    assert job.remaining_s() == pytest.approx(30.0)
    assert "about 30 s to go" in progress_html(job)
    job.run.fraction = 0.0
    assert job.remaining_s() is None
    assert "to go" not in progress_html(job)


def test_progress_is_a_progress_bar_with_its_value():
    job = Job("a", Run("a", state="running", fraction=0.5, text="<i>half</i>", started_s=0.0))
    assert 'role="progressbar"' in progress_html(job)
    assert 'aria-valuenow="50"' in progress_html(job)
    assert "<i>" not in progress_html(job)


def _running(registry: Registry, work: Work) -> Job:
    job = registry.start("running", work, visitor="someone")
    assert work.begun.wait(WAIT_S)
    return job


def test_each_visitor_has_a_job_of_their_own_on_one_run(registry, work):
    runs = []

    def counted(on_progress):
        runs.append(0)
        return work(on_progress)

    first = registry.start("key", counted, visitor="a")
    second = registry.start("key", counted, visitor="b")
    assert first.id != second.id
    assert first.run is second.run
    assert registry.start("key", counted, visitor="a") is first, "the same visitor, the same job"
    assert work.begun.wait(WAIT_S)
    assert first.fraction == second.fraction == 0.25
    work.go_on.set()
    assert _ended(registry, first).result == _ended(registry, second).result == "result"
    assert len(runs) == 1


def test_a_stop_takes_the_work_from_nobody_else_and_the_last_one_ends_it(registry, work):
    first = registry.start("key", work, visitor="a")
    second = registry.start("key", work, visitor="b")
    assert work.begun.wait(WAIT_S)
    registry.stop(first.id)
    assert (first.state, first.active, first.message) == ("stopped", False, LEFT)
    assert "Another visitor" in progress_html(first, stopped="begin anew")
    assert (second.state, second.active) == ("running", True)
    registry.stop(first.id)  # pressed once more, it takes nothing either
    assert not second.run.asked_to_stop.is_set()
    registry.stop(second.id)
    work.go_on.set()
    assert _ended(registry, second).state == "stopped"


def test_who_stopped_may_join_again(registry, work):
    first = registry.start("key", work, visitor="a")
    registry.start("key", work, visitor="b")
    registry.stop(first.id)
    again = registry.start("key", work, visitor="a")
    assert again.id != first.id
    assert again.run is first.run
    work.go_on.set()
    assert _ended(registry, again).state == "done"
    assert first.state == "stopped"


def test_the_work_that_the_server_began_is_its_visitors_to_stop(registry, work):
    own = registry.start("key", work)
    first = registry.start("key", work, visitor="a")
    registry.stop(own.id)
    assert first.active
    registry.stop(first.id)
    work.go_on.set()
    assert _ended(registry, first).state == "stopped"


def test_ids_are_unguessable_and_all_different(registry, work):
    ids = {registry.start("key", work, visitor=str(number)).id for number in range(100)}
    assert len(ids) == 100
    assert all(len(job_id) == 32 and int(job_id, 16) >= 0 for job_id in ids)


def test_places_in_the_queue_are_told_and_move_up(registry, work):
    _running(registry, work)
    waiting = [registry.start(str(number), Work(), visitor=str(number)) for number in range(5)]
    assert registry.counts() == {"waiting": 5, "running": 1}
    assert [job.place for job in waiting] == [(place, 5) for place in range(1, 6)]
    assert "waiting, place 3 of 5" in progress_html(waiting[2])
    registry.stop(waiting[0].id)
    assert "waiting, place 2 of 4" in progress_html(waiting[2])
    assert waiting[0].state == "stopped"
    for job in waiting[1:]:
        registry.stop(job.id)
    assert registry.counts() == {"waiting": 0, "running": 1}


def test_one_visitor_does_not_fill_the_queue(registry, work, monkeypatch):
    monkeypatch.setattr(jobs, "MOST_WAITING_EACH", 2)
    _running(registry, work)
    own = [registry.start(str(number), lambda on_progress: None, visitor="a") for number in range(3)]
    assert [job.state for job in own] == ["waiting", "waiting", "failed"]
    assert "expected fewer than 2 waiting jobs of yours, got 2. Wait until" in own[2].message
    assert "alert" in progress_html(own[2])
    assert registry.start("0", lambda on_progress: None, visitor="a") is own[0], "what waits already is no second job"
    other = registry.start("other", lambda on_progress: None, visitor="b")
    assert other.state == "waiting"
    work.go_on.set()
    assert _ended(registry, other).state == "done"
    assert _ended(registry, registry.start("2", lambda on_progress: None, visitor="a")).state == "done"


def test_the_queue_is_bounded_and_a_shared_run_still_joined(registry, work, monkeypatch):
    monkeypatch.setattr(jobs, "MOST_WAITING", 3)
    first = _running(registry, work)
    waiting = [registry.start(str(number), Work(), visitor=str(number)) for number in range(3)]
    refused = registry.start("3", Work(), visitor="3")
    assert refused.state == "failed"
    assert "The server is busy: expected fewer than 3 waiting jobs, got 3. Press" in refused.message
    assert registry.get(refused.id) is refused
    assert registry.start("running", work, visitor="late").run is first.run
    late = registry.start("1", work, visitor="late")
    assert late.run is waiting[1].run
    for job in waiting:
        registry.stop(job.id)
    assert [job.run.state for job in waiting] == ["stopped", "waiting", "stopped"]
    assert late.place == (1, 1)
    registry.stop(late.id)


def test_jobs_on_one_run_are_bounded(registry, work, monkeypatch):
    monkeypatch.setattr(jobs, "MOST_ACTIVE_JOBS", 10)
    monkeypatch.setattr(jobs, "KEPT_JOBS", 2)
    several = [registry.start("key", work, visitor=str(number)) for number in range(50)]
    assert sum(job.active for job in several) == 10
    assert several[0].active
    assert len(registry._jobs) <= 10 + 2 + 1


def test_what_ended_holds_on_to_no_models(registry):
    import gc
    import weakref

    class Model:
        pass

    model = Model()
    seen = weakref.ref(model)
    job = _ended(registry, registry.start("key", lambda on_progress, model=model: None))
    del model
    _settle(registry)
    gc.collect()
    assert seen() is None
    assert registry.get(job.id) is job


def test_strangers_read_no_paths_and_nobody_reads_tokens(registry, monkeypatch):
    def fail(on_progress):
        raise CacheError('expected a folder at "/home/owner/my fishers", got token hf_abcdefghijkl. Free some space.')

    told = _ended(registry, registry.start("a", fail)).message
    assert "/home/owner/my fishers" in told
    monkeypatch.setenv("SPACE_ID", "somebody/studio")
    hosted = _ended(registry, registry.start("b", fail)).message
    assert hosted == 'expected a folder at "[path]", got token [token]. Free some space.'
    assert "hf_" not in told


def test_phases_are_timed_on_the_page(registry):
    found = Estimated({"open": 1.25, "fisher": 2.0, "compare": 0.001})
    job = _ended(registry, registry.start("key", lambda on_progress: found))
    assert "(opening 1.2, Fishers 2.0)" in progress_html(job)
    assert "Took 0.0 s (" in watched(job)[2]


@pytest.mark.parametrize("odd", [7, None, ["a"], {"a": 1}, "\0", "a" * 10_000])
def test_what_is_no_id_is_no_job(registry, odd):
    assert registry.get(odd) is None
    assert registry.stop(odd) is None


def test_an_estimate_is_stopped_while_its_models_are_evaluated():
    rows = EvaluationSettings(examples=211)  # of which nobody has asked before what single models answer
    recipe = quick_recipe("four-tasks", fisher=FisherSettings(examples=16, seed=31), evaluation=rows)
    job = begin(recipe)
    deadline = time.monotonic() + WAIT_S
    while job.text != EVALUATING:
        assert job.active
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    jobs.REGISTRY.stop(job.id)
    assert job.run.ended.wait(WAIT_S)
    assert job.state == "stopped"
    assert STORE.get(recipe) is None
    again = begin(recipe)
    assert again.run.ended.wait(WAIT_S)
    assert again.state == "done"
    assert set(again.timings) == {"open", "fisher", "merge", "evaluate", "compare"}
    assert again.result.timings is again.timings
