"""What several threads want at once is computed once, and nobody waits in a circle."""

import threading
import time

import pytest

from merging.errors import Cancelled
from merging.once import Once

LONG_S = 20.0


def test_a_value_is_computed_once_for_all():
    once, computed, gate = Once(), [], threading.Event()

    def compute(pause):
        computed.append(1)
        gate.wait(LONG_S)
        return "value"

    found = []
    threads = [threading.Thread(target=lambda: found.append(once.get("key", compute))) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(LONG_S)
    assert (found, computed) == (["value"] * 4, [1])


def test_who_computes_pauses_while_nobody_waits_for_it_and_not_after():
    """As a search whose single models are evaluated while a slider of the same models moves."""
    once, begun, moves = Once(), threading.Event(), threading.Event()
    pauses = []

    def compute(pause):
        pause()
        begun.set()
        end_s = time.monotonic() + LONG_S
        while not moves.is_set() and time.monotonic() < end_s:
            time.sleep(0.01)
        time.sleep(0.2)  # the other is at the lock
        pause()
        return "value"

    def other():
        moves.set()
        return once.get("key", compute)

    working = threading.Thread(target=lambda: once.get("key", compute, lambda: pauses.append(1)))
    working.start()
    assert begun.wait(LONG_S)
    assert other() == "value"
    working.join(LONG_S)
    assert pauses == [1]


def test_what_was_cancelled_is_computed_again():
    once = Once()

    def cancel() -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        once.get("key", lambda pause: pause(), cancel)
    assert once.get("key", lambda pause: "value") == "value"
