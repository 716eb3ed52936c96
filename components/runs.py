"""A piece of work, and what each visitor who asked for it holds of it."""

import contextvars
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

STOPPED = "Stopped. What is estimated so far is kept: it goes on from there."
LEFT = "Stopped here. Another visitor has asked for the same, for whom it goes on."
# What timings are called on the page.
PHASES = {"open": "opening", "fisher": "Fishers", "merge": "merging", "evaluate": "evaluating", "compare": "comparing"}

Work = Callable[[Callable[[float, str], None]], object]


@dataclass(eq=False)
class Run:
    """One piece of work, of all who asked for it: waiting, running, done, stopped or failed; `fraction` 0 to 1."""

    key: str
    kind: str = "work"
    lane: str = "device"
    work: Work | None = None
    state: str = "waiting"
    place: tuple[int, int] = (1, 1)
    fraction: float = 0.0
    text: str = ""
    message: str = ""
    asked_s: float = field(default_factory=time.monotonic)
    started_s: float = 0.0
    ended_s: float = 0.0
    result: object = None
    timings: Mapping[str, float] = field(default_factory=dict)
    jobs: list["Job"] = field(default_factory=list)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    asked_to_stop: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        """Whether it is still waiting or running."""
        return self.state in ("waiting", "running")

    def end(self, state: str, message: str) -> None:
        """It has ended, and lets go of the models that its work holds on to."""
        self.work, self.context = None, contextvars.Context()
        self.message, self.ended_s = message, time.monotonic()
        self.started_s = self.started_s or self.ended_s
        self.state = state
        self.ended.set()

    def took(self) -> str:
        """How long it took, phase by phase."""
        phases = ", ".join(f"{PHASES.get(name, name)} {own:.1f}" for name, own in self.timings.items() if own >= 0.05)
        return f"Took {self.ended_s - self.started_s:.1f} s{f' ({phases})' if phases else ''}."

    def remaining_s(self) -> float | None:
        """Seconds to go at the pace so far; None before there is a pace."""
        elapsed = time.monotonic() - self.started_s
        return elapsed * (1 - self.fraction) / self.fraction if self.fraction > 0.02 and elapsed > 1 else None


@dataclass(eq=False)
class Job:
    """One visitor's part in a run: all is the run's, but that a job that was stopped has ended for its visitor."""

    id: str
    run: Run
    visitor: str | None = None
    left: bool = False

    def __getattr__(self, name: str) -> object:
        return getattr(self.run, name)

    @property
    def state(self) -> str:
        """The run's, or `stopped` where it goes on for others only; `lost` with an earlier server."""
        return "stopped" if self.left else self.run.state

    @property
    def message(self) -> str:
        """How it ended."""
        return LEFT if self.left else self.run.message

    @property
    def active(self) -> bool:
        """Whether it is still waiting or running for its visitor."""
        return not self.left and self.run.active
