"""What a visitor's page asked for last: of an older picture, and of a job it no longer watches, it is told nothing."""

import threading
from collections import OrderedDict
from collections.abc import Callable

from gradio.context import LocalContext

from merging.errors import Cancelled

KEPT_SESSIONS = 1000


class Latest:
    """One number for each session of a page, the sessions seen longest ago forgotten first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: OrderedDict[str, int] = OrderedDict()

    def begin(self, session: str | None) -> Callable[[], None]:
        """Makes this the session's latest picture; what comes back raises Cancelled once there is a later one."""
        if session is None:
            return lambda: None
        with self._lock:
            own = self._numbers[session] = self._numbers.get(session, 0) + 1
            self._numbers.move_to_end(session)
            while len(self._numbers) > KEPT_SESSIONS:
                self._numbers.popitem(last=False)

        def check() -> None:
            if self._numbers.get(session, own) != own:
                raise Cancelled

        return check


class Watched:
    """The job that each open page watches, the pages opened longest ago forgotten first.

    A poll may be on its way while the page is given another job, and browsers apply such answers in any order: what the
    page says that it watches may be the job before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, str] = OrderedDict()

    def opened(self, session: str | None) -> None:
        """A page was opened, which watches nothing yet. Programs open none: they ask about any of their jobs."""
        if session is None:
            return
        with self._lock:
            self._jobs[session] = ""
            while len(self._jobs) > KEPT_SESSIONS:
                self._jobs.popitem(last=False)

    def give(self, session: str | None, job_id: str) -> None:
        """From now on the page watches this job, or none."""
        with self._lock:
            if session in self._jobs:
                self._jobs[session] = job_id

    def of(self, session: str | None, job_id: str) -> str:
        """The job that the page watches, whatever it asks for; what is asked for, where no page asks."""
        with self._lock:
            return self._jobs.get(session, job_id)


LATEST, WATCHED = Latest(), Watched()


def session_hash() -> str | None:
    """The session of the page whose event is being handled; None outside of events."""
    return getattr(LocalContext.request.get(None), "session_hash", None)
