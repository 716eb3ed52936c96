"""A server and its visitors, for a time."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy
import psutil

from tests.load.expected import STUDIES, Case, compute
from tests.load.record import Record
from tests.load.visitor import Visitor
from tests.ui.server import Server, serving

MOVE_S = 2.0
MEMORY_GROWTH = 0.10
# Everything that visitors choose has been opened once by then; and how much of the end is looked at.
WARM_UP, END = 0.3, 0.1
SAMPLE_S = 1.0
MIB = 1 << 20


@dataclass
class Outcome:
    """What a run gave; `memory` holds the server's bytes with all its children's, and when."""

    record: Record
    seconds: float
    server_cpu_s: float
    own_cpu_s: float
    memory: list[tuple[float, int]] = field(default_factory=list)
    bugs: str = ""

    def move_p95_s(self) -> float:
        """The 95th percentile of a slider's move, from the hand to the new picture."""
        return self.record.percentile_s("move_weights", 95)

    def warm_bytes(self) -> float:
        """The median in the tenth of the time that follows the warm-up."""
        return self._memory_between(WARM_UP, WARM_UP + END)

    def end_bytes(self) -> float:
        """The median in the last tenth of the time."""
        return self._memory_between(1 - END, 1.1)

    def memory_growth(self) -> float:
        """From warm-up to end, as a share."""
        return self.end_bytes() / self.warm_bytes() - 1

    def failures(self) -> list[str]:
        """What must not happen, however slow the machine is."""
        told = [f"{count} × {kind}" for kind, count in self.record.errors.items()]
        return told + ([f"the server's log tells of a bug: {self.bugs}"] if self.bugs else [])

    def lines(self) -> list[str]:
        """The report."""
        memory = f"{self.warm_bytes() / MIB:.0f} MiB after warm-up, {self.end_bytes() / MIB:.0f} MiB at the end"
        cpu = f"CPU seconds per second: server {self.server_cpu_s / self.seconds:.2f}, visitors {self.own_cpu_s / self.seconds:.2f}"
        tenths = " ".join(f"{self._memory_between(tenth / 10, (tenth + 1) / 10) / MIB:.0f}" for tenth in range(10))
        load = " ".join(f"{value:.1f}" for value in psutil.getloadavg())
        return [
            *self.record.lines(self.seconds),
            f"memory: {memory} ({100 * self.memory_growth():+.1f} %); by tenths of the time {tenths}",
            f"{cpu} (of {psutil.cpu_count()} cores; load of the machine at the end {load})",
        ]

    def _memory_between(self, first: float, last: float) -> float:
        own = [size for at, size in self.memory if first <= at <= last]
        return float(numpy.median(own or [size for _, size in self.memory]))


def run(
    folder: Path,
    *,
    visitors: int,
    seconds: float,
    pause_s: float,
    hosted: bool = False,
    seed: int = 0,
    studies: Sequence[str] = tuple(STUDIES),
) -> Outcome:
    """Computes what visitors must see, then serves the page to them."""
    cases = compute(studies, seed=seed)
    environment = {"SPACE_ID": "someone/studio"} if hosted else {}
    with serving(folder, **environment) as server:
        settings = {"visitors": visitors, "seconds": seconds, "pause_s": pause_s, "seed": seed}
        outcome = asyncio.run(_serve(server, cases, **settings))
        try:
            server.require_alive()
        except AssertionError as problem:
            outcome.bugs = str(problem)[:2000]
    return outcome


async def _serve(
    server: Server, cases: Mapping[str, Sequence[Case]], *, visitors: int, seconds: float, pause_s: float, seed: int
) -> Outcome:
    process, own = psutil.Process(server.process.pid), psutil.Process()
    record, before = Record(), (_cpu_s(process), _cpu_s(own))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=visitors)
    begun = time.monotonic()
    async with httpx.AsyncClient(limits=limits, timeout=120) as http:
        memory: list[tuple[float, int]] = []
        watching = asyncio.create_task(_watch(process, memory, begun, seconds))
        people = [
            Visitor(http, server.url, cases, record, random.Random(f"{seed} {number}"), pause_s)
            for number in range(visitors)
        ]
        await asyncio.gather(*[one.stay(begun + seconds) for one in people])
        watching.cancel()
    taken = time.monotonic() - begun
    return Outcome(record, taken, _cpu_s(process) - before[0], _cpu_s(own) - before[1], memory)


async def _watch(process: psutil.Process, memory: list[tuple[float, int]], begun: float, seconds: float) -> None:
    while True:
        family = [process, *process.children(recursive=True)]
        memory.append(((time.monotonic() - begun) / seconds, sum(_resident(one) for one in family)))
        await asyncio.sleep(SAMPLE_S)


def _resident(process: psutil.Process) -> int:
    try:
        return process.memory_info().rss
    except psutil.NoSuchProcess:
        return 0


def _cpu_s(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system
