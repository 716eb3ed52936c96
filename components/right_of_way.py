"""Who goes first: long work waits between its steps while somebody moves a slider."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

# After a merge comes its picture, and after a move of the hand the next one.
QUIET_S = 0.25
# A hand that never rests slows long work down, but does not stop it.
LONGEST_WAIT_S = 2.0
# One hand rests now and then. Where many visitors' hands never do, all work goes on side by side.
PATIENCE_S = 10.0
CROWDED_WAIT_S = 0.02
# Merges of small models are many short steps in Python: one after the other they are done sooner than side by side. Those of
# a moving hand, which are short, do not stand behind the others.
AT_ONCE = 1


class RightOfWay:
    """What is live has it, and a moment longer; long work gives it, at every report of its progress."""

    def __init__(self, quiet_s: float = QUIET_S, patience_s: float = PATIENCE_S) -> None:
        self._changed = threading.Condition()
        self._turns = {moving: threading.BoundedSemaphore(AT_ONCE) for moving in (True, False)}
        self._live = 0
        self._quiet_s, self._patience_s = quiet_s, patience_s
        self._free_s = 0.0
        self._busy_since_s = 0.0

    @contextmanager
    def taken(self, *, moving: bool = False) -> Iterator[None]:
        """For the time of live work, once it is its turn; what a `moving` hand waits for has turns of its own."""
        with self._changed:
            if not self._live and (now := time.monotonic()) >= self._free_s:
                self._busy_since_s = now
            self._live += 1
        try:
            with self._turns[moving]:
                yield
        finally:
            with self._changed:
                self._live -= 1
                self._free_s = time.monotonic() + self._quiet_s
                self._changed.notify_all()

    def give(self, limit_s: float = LONGEST_WAIT_S) -> None:
        """Waits until nothing is or was live a moment ago, at most `limit_s` seconds; hardly, where that is never so."""
        with self._changed:
            now = time.monotonic()
            if (self._live or now < self._free_s) and now - self._busy_since_s > self._patience_s:
                limit_s = min(limit_s, CROWDED_WAIT_S)
            end_s = now + limit_s
            while (now := time.monotonic()) < end_s and (self._live or now < self._free_s):
                self._changed.wait((end_s if self._live else min(end_s, self._free_s)) - now)


LIVE = RightOfWay()
