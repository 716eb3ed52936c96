"""The open pages: whose each is, the jobs that it watches, and the picture that it asked for last.

Events of one page are answered in any order. What a page says of itself may be older than what the server has told it
since; so the server remembers, by the page's session, and older answers say nothing.
"""

import re
import threading
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import TypeVar

from gradio.context import LocalContext

from merging.errors import Cancelled

KEPT_PAGES = 2000
LONGEST_WAIT_S = 3.0
VISIT = re.compile(r"[0-9a-f]{32}")
ESTIMATE, SEARCH, LESSONS = "estimate", "search", "lessons"
Answer = TypeVar("Answer", bound=Callable)


class Turns:
    """One after the other in the order of asking, which a lock does not keep."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asking: deque[object] = deque()

    @contextmanager
    def next(self) -> Iterator[None]:
        """Inside, no other is; unless this has waited long: nobody holds up all threads."""
        own = object()
        with self._changed:
            self._asking.append(own)
            self._changed.wait_for(lambda: self._asking[0] is own, LONGEST_WAIT_S)
        try:
            yield
        finally:
            with self._changed:
                self._asking.remove(own)
                self._changed.notify_all()


@dataclass
class Page:
    """One open page: its visit, the ids of the jobs that it watches by panel, the number and form of its latest picture."""

    visit: str
    jobs: dict[str, str] = field(default_factory=dict)
    picture: int = 0
    form: tuple = ()
    turns: defaultdict[str, Turns] = field(default_factory=lambda: defaultdict(Turns))


class Pages:
    """Pages by session, those opened longest ago forgotten first. Programs have sessions too, but open no page.

    The id of a visit, the same after a reload and in the visitor's other tabs, is kept by the browser and by nobody else: it
    is neither shown nor written to the log.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: OrderedDict[str, Page] = OrderedDict()

    def welcome(self, session: str | None, visit: object) -> str:
        """A page was opened, which watches nothing yet; returns the visit's id, a new one where the browser has none."""
        visit = visit if is_visit(visit) else uuid.uuid4().hex
        if session is not None:
            with self._lock:
                self._pages[session] = Page(visit, {ESTIMATE: ""})
                self._pages.move_to_end(session)
                while len(self._pages) > KEPT_PAGES:
                    self._pages.popitem(last=False)
        return visit

    def visit_of(self, session: str | None) -> str | None:
        """The visit of a session; the session itself where it opened no page; None outside of the page's events."""
        page = self._pages.get(session)
        return page.visit if page is not None else session

    def watch(self, session: str | None, panel: str, job_id: str) -> None:
        """From now on the page's panel watches this job, or none."""
        if (page := self._pages.get(session)) is not None:
            page.jobs[panel] = job_id

    def watched(self, session: str | None, panel: str, asked: str) -> str:
        """The job that the panel watches, whatever it asks for; what is asked for, where no page asks."""
        page = self._pages.get(session)
        return asked if page is None else page.jobs.get(panel, asked)

    def begin_picture(self, session: str | None, form: tuple = (), *, settles: bool = False) -> Callable[[], None]:
        """Makes this the page's latest picture; what comes back raises Cancelled once there is a later one.

        Raises: Cancelled for what `settles` the picture of another form than the latest one's.
        """
        page = self._pages.get(session)
        if page is None:
            return lambda: None
        with self._lock:
            if settles and form != page.form:
                raise Cancelled
            page.picture += 1
            page.form = form
            own = page.picture

        def check() -> None:
            if page.picture != own:
                raise Cancelled

        return check

    @contextmanager
    def turn(self, session: str | None, panel: str) -> Iterator[None]:
        """Inside, no other event of the page's panel is answered: see `Turns`."""
        page = self._pages.get(session)
        if page is None:
            yield
            return
        with self._lock:
            own = page.turns[panel]
        with own.next():
            yield


PAGES = Pages()


def is_visit(visit: object) -> bool:
    """Whether this may be the id of a visit."""
    return isinstance(visit, str) and VISIT.fullmatch(visit) is not None


def session_hash() -> str | None:
    """The session of the page whose event is being handled; None outside of events."""
    return getattr(LocalContext.request.get(None), "session_hash", None)


def visitor() -> str | None:
    """Who asks for the event that is being handled; None outside of events: the server itself."""
    return PAGES.visit_of(session_hash())


def watch(panel: str, job_id: str) -> None:
    """The page whose event is being handled watches this job from now on."""
    PAGES.watch(session_hash(), panel, job_id)


def in_turn(panel: str) -> Callable[[Answer], Answer]:
    """Decorates what answers a panel's events, so that a page's later answer is never that of an earlier event."""

    def decorate(answer: Answer) -> Answer:
        @wraps(answer)
        def waiting(*values: object) -> object:
            with PAGES.turn(session_hash(), panel):
                return answer(*values)

        return waiting

    return decorate


def watched_job(panel: str, asked: str) -> str:
    """The job that the page whose event is being handled watches."""
    return PAGES.watched(session_hash(), panel, asked)
