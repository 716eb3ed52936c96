"""Copies of a model that merges are written into, one after the other: made when they are needed."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from queue import Empty, Full, LifoQueue

import torch
from torch import Tensor, nn

from merging.merge import merge_parameters

COUNTER = "num_batches_tracked"


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


def write_merged(
    target: nn.Module, models: Sequence[nn.Module], merged: Mapping[str, Tensor], weights: list[float]
) -> None:
    """Writes merged parameters into a module, and the λ-weighted mean of the models' floating-point buffers with them."""
    own, buffers = dict(target.named_parameters()), [buffers_of(model) for model in models]
    with torch.no_grad():
        for name, tensor in merged.items():
            own[name].copy_(tensor)
        if buffers[0]:
            for name, tensor in merge_parameters(buffers, "isotropic", weights).items():
                target.base_model.get_buffer(name).copy_(tensor)


def buffers_of(model: nn.Module) -> dict[str, Tensor]:
    """The body's buffers, but for the count of training steps, which differs between any two fine-tunings."""
    return {name: own for name, own in model.base_model.named_buffers() if name.split(".")[-1] != COUNTER}
