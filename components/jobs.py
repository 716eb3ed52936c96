"""Long work in threads of its own, so that it outlives the tab that began it, and can be watched and stopped.

Visitors who ask for the same share one run. Each of them has a job of their own on it, whose unguessable id is theirs alone:
whoever has the id may stop that job and no other, and the run ends when the last job on it is stopped.
"""

import logging
import threading
import time
import uuid
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

from components import logs
from components.journal import JOURNAL, Journal
from components.modes import is_hosted
from components.right_of_way import LIVE
from components.runs import STOPPED, Job, Run, Work
from merging.errors import Cancelled, MergingError

KEPT_JOBS = 256
KEPT_S = 3600.0
# Who waits for an estimate does not wait for other people's searches.
LANES = ("device", "search")
# A queue longer than this would be left before its end; each visitor's part of it leaves room for others.
MOST_WAITING, MOST_WAITING_EACH = 64, 8
MOST_ACTIVE_JOBS = 4096
ESTIMATE = "estimate of Fishers"

BUG = "This is a bug in the program; its log says more. Reload the page to go on."
BUSY = "The server is busy: expected fewer than {} waiting jobs, got {}. Press the button again in a few minutes."
BUSY_EACH = (
    "The server is busy: expected fewer than {} waiting jobs of yours, got {}. "
    "Wait until one of them has ended, then press the button again."
)
LOST = "The server was restarted before your {} had ended, which is lost. {}"
GOES_ON = "“Estimate Fisher” goes on from what it had saved."
BEGIN_AGAIN = "Begin it again; Fishers that were finished are kept."


class Registry:
    """Jobs by unguessable id, one run at a time in each lane, in the order they were asked for."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._lanes = {lane: ThreadPoolExecutor(max_workers=1, thread_name_prefix=lane) for lane in LANES}
        self._waiting: dict[str, list[Run]] = {lane: [] for lane in LANES}
        self._running: set[Run] = set()
        self._journal = journal or Journal()

    def start(
        self, key: str, work: Work, *, kind: str = "work", lane: str = "device", visitor: str | None = None
    ) -> Job:
        """Begins `work(on_progress)`; joins the run of the same key where one is still active.

        Where too many wait, the job that comes back has failed, and says so. `kind` names it to visitors.
        """
        with self._lock:
            self._forget_old()
            run = self._active(key)
            if run is not None and (own := next((one for one in run.jobs if _is_of(one, visitor)), None)) is not None:
                return own
            refusal, is_new = self._refusal(visitor, is_new=run is None), run is None
            if refusal or run is None:
                run = Run(key, kind, lane, work)
            job = Job(uuid.uuid4().hex, run, visitor)
            run.jobs.append(job)
            self._jobs[job.id] = job
            if refusal:
                run.end("failed", refusal)
            elif is_new:
                self._waiting[lane].append(run)
                self._number(lane)
        if refusal:
            logs.event("job_refused", logging.WARNING, kind=kind, **self.counts())
            return job
        logs.event("job_asked", job=job.id[:8], kind=kind, lane=lane, shared=not is_new, **self.counts())
        self._journal.add(job.id, kind)
        if is_new:
            self._lanes[lane].submit(self._next, lane)
        elif not job.active:  # ended meanwhile, before it was noted
            self._journal.remove([job.id])
        return job

    def get(self, job_id: str | None) -> Job | None:
        """A job by id, also one that an earlier server has lost; None if it is unknown or forgotten."""
        job_id = job_id if isinstance(job_id, str) else ""
        with self._lock:
            if (job := self._jobs.get(job_id)) is not None:
                return job
        if (kind := self._journal.lost(job_id)) is None:
            return None
        return Job("", Run("", kind, state="lost", message=LOST.format(kind, _remedy(kind))))

    def active(self, key: str) -> Run | None:
        """The run of this key that waits or runs; None if there is none or if it was asked to stop."""
        with self._lock:
            return self._active(key)

    def counts(self) -> dict[str, int]:
        """How many runs wait, and how many run."""
        with self._lock:
            return {"waiting": sum(map(len, self._waiting.values())), "running": len(self._running)}

    def stop(self, job_id: str | None) -> Job | None:
        """Stops a job for its visitor; the last of a run's jobs ends the work at its next report, within a batch."""
        job = self.get(job_id)
        with self._lock:
            if job is None or not job.active:
                return job
            run = job.run
            if any(one.visitor is not None and not one.left for one in run.jobs if one is not job):
                job.left = True
            else:
                run.asked_to_stop.set()
                if run in self._waiting[run.lane]:
                    self._waiting[run.lane].remove(run)
                    self._number(run.lane)
                    run.end("stopped", STOPPED)
        logs.event("job_stopped", job=job.id[:8], kind=run.kind, goes_on=job.left)
        if not job.active:
            self._journal.remove([job.id])
        return job

    def _active(self, key: str) -> Run | None:
        going_on = (job.run for job in self._jobs.values() if job.run.active and not job.run.asked_to_stop.is_set())
        return next((run for run in going_on if run.key == key), None)

    def _refusal(self, visitor: str | None, *, is_new: bool) -> str:
        waiting = [run for runs in self._waiting.values() for run in runs]
        own = sum(any(_is_of(job, visitor) for job in run.jobs) for run in waiting)
        if is_new and visitor is not None and own >= MOST_WAITING_EACH:
            return BUSY_EACH.format(MOST_WAITING_EACH, own)
        if is_new and len(waiting) >= MOST_WAITING:
            return BUSY.format(MOST_WAITING, len(waiting))
        return BUSY.format(MOST_ACTIVE_JOBS, len(self._jobs)) if len(self._jobs) >= MOST_ACTIVE_JOBS else ""

    def _number(self, lane: str) -> None:
        for index, run in enumerate(self._waiting[lane]):
            run.place = (index + 1, len(self._waiting[lane]))

    def _next(self, lane: str) -> None:
        """Runs what has waited longest; nothing where it was stopped meanwhile."""
        with self._lock:
            if not self._waiting[lane]:
                return
            run = self._waiting[lane].pop(0)
            self._number(lane)
            self._running.add(run)
            run.started_s, run.text, run.state = time.monotonic(), "starting", "running"
        run.context.run(self._run, run)

    def _run(self, run: Run) -> None:
        def on_progress(fraction: float, text: str) -> None:
            LIVE.give()
            if run.asked_to_stop.is_set():
                raise Cancelled
            run.fraction, run.text = fraction, text

        state, message, problem = "done", "", None
        try:
            on_progress(0.0, "starting")
            run.result = run.work(on_progress)
            run.timings, message = getattr(run.result, "timings", {}), getattr(run.result, "summary", "")
            run.fraction, run.text = 1.0, "done"
        except Cancelled:
            state, message = "stopped", STOPPED
        except MergingError as told:
            # Whose machine it is reads where its files lie; visitors of a server do not.
            state, message, problem = "failed", logs.redacted(str(told), paths=is_hosted()), told
        except Exception as bug:
            state, message, problem = "failed", BUG, bug
        with self._lock:
            self._running.discard(run)
            run.end(state, message)
        _log_end(run, problem)
        self._journal.remove([job.id for job in run.jobs])

    def _forget_old(self) -> None:
        now = time.monotonic()
        ended = [job for job in self._jobs.values() if not job.run.active]
        for index, job in enumerate(ended):
            if now - job.run.ended_s > KEPT_S or len(ended) - index > KEPT_JOBS:
                del self._jobs[job.id]


REGISTRY = Registry(JOURNAL)


def _is_of(job: Job, visitor: str | None) -> bool:
    return job.visitor == visitor and not job.left


def _remedy(kind: str) -> str:
    return GOES_ON if kind == ESTIMATE else BEGIN_AGAIN


def _log_end(run: Run, problem: Exception | None) -> None:
    is_bug = problem is not None and not isinstance(problem, MergingError)
    text = {"text": str(problem)} if is_bug and not is_hosted() else {}
    logs.event(
        "job_ended",
        logging.ERROR if is_bug else logging.INFO,
        problem=problem,
        jobs=[job.id[:8] for job in run.jobs[:8]],
        kind=run.kind,
        state=run.state,
        waited_s=run.started_s - run.asked_s,
        duration_s=run.ended_s - run.started_s,
        timings=dict(run.timings),
        **text,
    )
