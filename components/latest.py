"""Which picture a visitor's page asked for last: an older one that is still being computed gives up."""

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


LATEST = Latest()


def session_hash() -> str | None:
    """The session of the page whose event is being handled; None outside of events."""
    return getattr(LocalContext.request.get(None), "session_hash", None)
