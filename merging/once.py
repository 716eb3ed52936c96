"""What several threads want and one of them computes."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Value = TypeVar("Value")
Pause = Callable[[], None]


class Once(Generic[Value]):
    """Values by key, each computed when it is first wanted; nobody waits for whoever waits for them.

    Long work pauses to let others go first. While others wait for what it computes, it does not: each would wait for the
    other.
    """

    def __init__(self) -> None:
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self._wanting = 0
        self._found: dict[str, Value] = {}

    def get(self, key: str, compute: Callable[[Pause | None], Value], pause: Pause | None = None) -> Value:
        """What `compute(pause)` gave for this key; `pause` may raise Cancelled, and then nothing is kept."""
        if key in self._found:
            return self._found[key]
        self._count(1)
        try:
            with self._lock:
                if key not in self._found:
                    self._found[key] = compute(pause and (lambda: self._pause(pause)))
                return self._found[key]
        finally:
            self._count(-1)

    def has(self, key: str) -> bool:
        """Whether this key's value is there."""
        return key in self._found

    def _pause(self, pause: Pause) -> None:
        if self._wanting == 1:
            pause()

    def _count(self, change: int) -> None:
        with self._counting:
            self._wanting += change
