"""Who asks: the visit that a page belongs to, the same after a reload and in the visitor's other tabs."""

import re
import threading
import uuid
from collections import OrderedDict

from components.latest import session_hash

KEPT_SESSIONS = 2000
VISIT = re.compile(r"[0-9a-f]{32}")


class Visitors:
    """Visits by the sessions of their pages, the sessions opened longest ago forgotten first.

    The id of a visit is kept by the browser and by nobody else: it is neither shown nor written to the log.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._visits: OrderedDict[str, str] = OrderedDict()

    def welcome(self, session: str | None, visit: object) -> str:
        """A page was opened: notes whose it is; returns the visit's id, a new one where the browser has none."""
        visit = visit if is_visit(visit) else uuid.uuid4().hex
        if session is not None:
            with self._lock:
                self._visits[session] = visit
                self._visits.move_to_end(session)
                while len(self._visits) > KEPT_SESSIONS:
                    self._visits.popitem(last=False)
        return visit

    def of(self, session: str | None) -> str | None:
        """The visit of a session; the session itself where it opened no page; None outside of the page's events."""
        with self._lock:
            return self._visits.get(session, session) if session is not None else None


VISITORS = Visitors()


def is_visit(visit: object) -> bool:
    """Whether this may be the id of a visit."""
    return isinstance(visit, str) and VISIT.fullmatch(visit) is not None


def visitor() -> str | None:
    """Who asks for the event that is being handled; None outside of events: the server itself."""
    return VISITORS.of(session_hash())
