"""Copies of a model that merges are written into, one after the other: made when they are needed."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from queue import Empty, Full, LifoQueue

from torch import nn


class Targets:
    """At most `count` at a time, and as many more for those who wait for others between batches.

    The others must not wait for what those hold. Safe to use from several threads.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        self._model = model
        self._own: LifoQueue[nn.Module | None] = LifoQueue()
        for _ in range(count):
            self._own.put(None)
        self._patient: LifoQueue[nn.Module | None] = LifoQueue(count)

    @contextmanager
    def one(self, *, is_patient: bool = False) -> Iterator[nn.Module]:
        """A copy for the time of one evaluation."""
        queue, target = self._patient if is_patient else self._own, None
        with suppress(Empty):  # of the patient ones
            target = queue.get(block=not is_patient)
        try:
            target = copy.deepcopy(self._model) if target is None else target
            yield target
        finally:
            with suppress(Full):  # one more than are kept
                queue.put_nowait(target)

    def kept(self) -> int:
        """How many copies there are that nobody uses."""
        return sum(target is not None for queue in (self._own, self._patient) for target in list(queue.queue))

    def forget(self) -> None:
        """Gives back the memory of those that nobody uses."""
        for queue in (self._own, self._patient):
            idle = []
            with suppress(Empty):
                while True:
                    idle.append(queue.get_nowait())
            with suppress(Full):
                for _ in idle:
                    queue.put_nowait(None)
