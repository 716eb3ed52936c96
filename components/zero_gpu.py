"""ZeroGPU, a Space's GPU that is lent for one call at a time: each call runs in a process forked from this one.

Arguments and results are pickled; the token of whoever has signed in goes along, from memory to memory. A call is a generator, so that its progress comes back while it runs, and so that
closing it ends it. The live sliders stay on the CPU. Source: the `spaces` package, whose decorator is the function itself
wherever there is no ZeroGPU.
"""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from contextvars import copy_context

import gradio as gr

from merging import lent_work
from merging.devices import is_zero_gpu
from merging.errors import Cancelled, DeviceError, MergingError
from merging.evaluation import Fixed
from merging.lending import OnProgress
from merging.readers import Reader, reader
from merging.recipe import Recipe

# What the GPU does in a second, to be on the safe side; opening the models takes longer than most estimates.
OPERATIONS_PER_S = 4e12
OPENING_S = 15
SHORTEST_S, LONGEST_S = 20, 120
REPORT_S = 0.2

Event = tuple[str, object]
Work = Callable[[OnProgress], object]


def seconds_for(operations: float) -> int:
    """How long the GPU is asked for, in seconds: who asks for less waits less."""
    return round(max(SHORTEST_S, min(LONGEST_S, OPENING_S + operations / OPERATIONS_PER_S)))


def _duration(*arguments: object) -> int:
    return arguments[-1]


def _on_gpu(work: Callable[..., Iterator[Event]]) -> Callable[..., Iterator[Event]]:
    if not is_zero_gpu():
        return work
    from spaces import GPU

    return GPU(work, duration=_duration)


def fisher_call(recipe_yaml: str, index: int, reader: Reader | None, seconds: int) -> Iterator[Event]:
    """Estimates the Fisher of a recipe's model into the cache: how far it is, at last that it is done or has failed."""
    yield from reported(lambda on_progress: lent_work.estimate_fisher(recipe_yaml, index, reader, on_progress))


def fixed_call(recipe_yaml: str, split: str, reader: Reader | None, seconds: int) -> Iterator[Event]:
    """Evaluates a recipe's single models and their ensemble: how far it is, at last their predictions."""
    yield from reported(lambda on_progress: lent_work.predict_fixed(recipe_yaml, split, reader, on_progress))


fisher_on_gpu, fixed_on_gpu = _on_gpu(fisher_call), _on_gpu(fixed_call)


def reported(work: Work) -> Generator[Event, None, None]:
    """Does the work in a thread: ("progress", (fraction, text)) now and then, at last ("done", result) or ("failed", error).

    Closed before its end, it ends the work at its next report. A bug is raised.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    ended = threading.Event()
    last_s = 0.0

    def on_progress(fraction: float, text: str) -> None:
        nonlocal last_s
        if ended.is_set():
            raise Cancelled
        if time.monotonic() - last_s > REPORT_S:
            last_s = time.monotonic()
            events.put(("progress", (fraction, text)))

    def run() -> None:
        try:
            events.put(("done", work(on_progress)))
        except (MergingError, Cancelled) as problem:
            events.put(("failed", problem))
        except BaseException as bug:
            events.put(("bug", bug))

    thread = threading.Thread(target=copy_context().run, args=(run,))
    thread.start()
    try:
        while True:
            kind, value = events.get()
            if kind == "bug":
                raise value
            yield kind, value
            if kind != "progress":
                return
    finally:
        ended.set()
        thread.join()


class ZeroGpu:
    """The lender of ZeroGPU's device. See `merging.lending.Lender`."""

    device = "cuda"

    def fisher(self, recipe: Recipe, index: int, operations: float, on_progress: OnProgress) -> None:
        """One call for one Fisher: short calls wait less, and what is finished stays."""
        _followed(fisher_on_gpu(recipe.to_yaml(), index, reader(), seconds_for(operations)), on_progress)

    def fixed(self, recipe: Recipe, split: str, operations: float, on_progress: OnProgress) -> Fixed:
        """One call for all single models."""
        return _followed(fixed_on_gpu(recipe.to_yaml(), split, reader(), seconds_for(operations)), on_progress)


def lender() -> ZeroGpu | None:
    """Who lends this server a device; None where it has its own."""
    return ZeroGpu() if is_zero_gpu() else None


def _followed(call: Iterator[Event], on_progress: OnProgress) -> object:
    """Passes a call's progress on and returns its result. Raises: DeviceError where ZeroGPU refused or lost the call."""
    try:
        with closing(call):
            for kind, value in call:
                if kind == "failed":
                    raise value
                if kind == "done":
                    return value
                on_progress(*value)
    except gr.Error as problem:  # a used-up quota, a GPU that was not to be had in time, a worker that died
        raise DeviceError(
            f"The GPU could not be had: expected a turn on ZeroGPU, got {problem.message!r:.200}."
        ) from None
    raise DeviceError("The GPU could not be had: expected a result from ZeroGPU, got none.")
