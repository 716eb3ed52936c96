"""Long work in threads of its own, so that it outlives the tab that began it, and can be watched and stopped."""

import contextvars
import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from components.right_of_way import LIVE
from merging.errors import Cancelled, MergingError

KEPT_JOBS = 64
KEPT_S = 3600.0
# Who waits for an estimate does not wait for other people's searches.
LANES = ("device", "search")

Work = Callable[[Callable[[float, str], None]], object]


@dataclass(eq=False)
class Job:
    """One piece of work: `state` is waiting, running, done, stopped or failed; `fraction` 0 to 1."""

    id: str
    key: str
    state: str = "waiting"
    fraction: float = 0.0
    text: str = "waiting for the device"
    message: str = ""
    started_s: float = 0.0
    ended_s: float = 0.0
    result: object = None
    asked_to_stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        """Whether it is still waiting or running."""
        return self.state in ("waiting", "running")

    def remaining_s(self) -> float | None:
        """Seconds to go at the pace so far; None before there is a pace."""
        elapsed = time.monotonic() - self.started_s
        return elapsed * (1 - self.fraction) / self.fraction if self.fraction > 0.02 and elapsed > 1 else None


class Registry:
    """Jobs by unguessable id, one at a time in each lane, in the order they were asked for."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._lanes = {lane: ThreadPoolExecutor(max_workers=1, thread_name_prefix=lane) for lane in LANES}

    def start(self, key: str, work: Work, *, lane: str = "device") -> Job:
        """Begins `work(on_progress)`; joins the job of the same key where one is still active."""
        with self._lock:
            self._forget_old()
            if (running := self._active(key)) is not None:
                return running
            job = Job(id=uuid.uuid4().hex, key=key)
            self._jobs[job.id] = job
        context = contextvars.copy_context()
        self._lanes[lane].submit(context.run, self._run, job, work)
        return job

    def get(self, job_id: str | None) -> Job | None:
        """A job by id; None if it is unknown or forgotten."""
        with self._lock:
            return self._jobs.get(job_id or "")

    def active(self, key: str) -> Job | None:
        """The job of this key that waits or runs; None if there is none or if it was asked to stop."""
        with self._lock:
            return self._active(key)

    def _active(self, key: str) -> Job | None:
        going_on = (job for job in self._jobs.values() if job.active and not job.asked_to_stop.is_set())
        return next((job for job in going_on if job.key == key), None)

    def stop(self, job_id: str | None) -> Job | None:
        """Asks a job to stop; it does so at its next report of progress, within a batch."""
        job = self.get(job_id)
        if job is not None:
            job.asked_to_stop.set()
        return job

    def _run(self, job: Job, work: Work) -> None:
        def on_progress(fraction: float, text: str) -> None:
            LIVE.give()
            if job.asked_to_stop.is_set():
                raise Cancelled
            job.fraction, job.text = fraction, text

        job.started_s = time.monotonic()
        job.state = "running"
        try:
            on_progress(0.0, "starting")
            job.result = work(on_progress)
            job.message = getattr(job.result, "summary", "")
            job.fraction, job.text, job.state = 1.0, "done", "done"
        except Cancelled:
            job.state, job.message = "stopped", "Stopped. What is estimated so far is kept: it goes on from there."
        except MergingError as problem:
            job.state, job.message = "failed", str(problem)
        except Exception:
            logging.getLogger(__name__).exception("job failed")
            job.state, job.message = (
                "failed",
                "This is a bug in the program; its log says more. Reload the page to go on.",
            )
        finally:
            job.ended_s = time.monotonic()
            job.ended.set()

    def _forget_old(self) -> None:
        now = time.monotonic()
        for job_id, job in list(self._jobs.items()):
            if not job.active and (now - job.ended_s > KEPT_S or len(self._jobs) >= KEPT_JOBS):
                del self._jobs[job_id]


REGISTRY = Registry()
