"""What a run of many visitors saw: times, errors by kind, numbers that were not theirs."""

import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import numpy

# What a server may say to one too many: it is busy, and where one stands.
BUSY = re.compile(r"queue is full|busy|\bplace \d+", re.IGNORECASE)
SHOWN = 5
MOVE = "move_weights"


@dataclass
class Record:
    """Filled by all visitors of a run."""

    times_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ends_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    busy: Counter = field(default_factory=Counter)
    errors: Counter = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    doings: Counter = field(default_factory=Counter)
    checked: int = 0
    previews: int = 0
    exports: int = 0
    waiting: int = 0

    def took(self, name: str, seconds: float) -> None:
        """One answer, from the click until it was there."""
        self.times_s[name].append(seconds)
        self.ends_s[name].append(time.monotonic())

    def check(self, name: str, wrong: str) -> None:
        """One comparison with a single visitor's numbers; `wrong` is empty where they are equal."""
        self.checked += 1
        if wrong:
            self.error(f"other numbers in {name}", wrong)

    def refused(self, told: str, where: str = "") -> None:
        """What the server did not do: its being busy is told apart from all else."""
        if BUSY.search(told):
            self.busy[told[:80]] += 1
        else:
            self.error(f"refused {where}".strip(), told)

    def error(self, kind: str, told: str) -> None:
        """Something that must not happen."""
        self.errors[kind] += 1
        if len(self.examples[kind]) < SHOWN:
            self.examples[kind].append(told[:600])

    def percentile_s(self, name: str, percent: float) -> float:
        """Of the times of one event; 0 where there were none."""
        return float(numpy.percentile(self.times_s[name], percent)) if self.times_s[name] else 0.0

    def longest_by_tenths(self, name: str) -> list[float]:
        """The longest time of one event, in seconds, in each tenth of the run; 0 where there was none."""
        ends = numpy.array(self.ends_s[name])
        if not len(ends):
            return [0.0] * 10
        tenths = numpy.minimum(10 * (ends - ends.min()) / max(float(numpy.ptp(ends)), 1e-9), 9).astype(int)
        return [
            max((own for own, at in zip(self.times_s[name], tenths, strict=True) if at == tenth), default=0.0)
            for tenth in range(10)
        ]

    def lines(self, seconds: float) -> list[str]:
        """The tables of a report."""
        rows = [f"{'event':<28}{'count':>7}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}{'per s':>8}"]
        for name in sorted(self.times_s, key=lambda one: -len(self.times_s[one])):
            own = self.times_s[name]
            at = [1000 * self.percentile_s(name, percent) for percent in (50, 95, 100)]
            rows.append(f"{name:<28}{len(own):>7}{at[0]:>9.0f}{at[1]:>9.0f}{at[2]:>9.0f}{len(own) / seconds:>8.2f}")
        rows += [
            f"compared with a single visitor's numbers: {self.checked}; moves that were previews: {self.previews}; "
            f"exports opened: {self.exports}; no picture yet: {self.waiting}",
            f"the longest move by tenths of the time, s: {' '.join(f'{own:.1f}' for own in self.longest_by_tenths(MOVE))}",
            f"what they did: {dict(self.doings)}",
            f"busy: {dict(self.busy) or 'never'}",
            f"errors: {dict(self.errors) or 'none'}",
        ]
        rows += [f"  {kind}: {told}" for kind, own in self.examples.items() for told in own]
        return rows
