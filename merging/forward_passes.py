"""Which batches of which tasks go through a body together.

A forward pass of a small model takes the longer the more operations it has, hardly the more rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Batches = Sequence[Mapping[str, Tensor]]
# What a batch holds beside a model's inputs: the right labels, and where its examples stood in their dataset.
NO_INPUTS = ("labels", "rows")
# Of several batches in one pass; a single one may have more.
MOST_ROWS = 128


class Place(NamedTuple):
    """Where rows of a forward pass belong: the task's index, the index of its batch, and which rows they are."""

    task: int
    batch: int
    rows: slice


def forward_passes(models: Sequence[nn.Module], batches: Sequence[Batches]) -> Iterator[list[Place]]:
    """The places of each pass, one model for each task: equal tensors share their rows, small batches of one shape a pass.

    All models of a pass have one body module, or are the same.
    """
    waiting: dict[tuple[object, ...], list[Place]] = {}
    for body, tasks in _same_inputs(models, batches):
        for index, batch in enumerate(batches[tasks[0]]):
            inputs = _inputs(batch)
            shapes = [(name, value.dtype, value.shape[1:]) for name, value in inputs.items()]
            places = waiting.setdefault((body, *shapes), [])
            start, count = places[-1].rows.stop if places else 0, len(batch["labels"])
            if places and start + count > MOST_ROWS:
                yield list(places)
                places.clear()
                start = 0
            places.extend(Place(task, index, slice(start, start + count)) for task in tasks)
    yield from waiting.values()


def joined_inputs(places: Sequence[Place], batches: Sequence[Batches], device: torch.device) -> dict[str, Tensor]:
    """The rows of a pass, one after the other, on a device."""
    parts = {place.rows.start: _inputs(batches[place.task][place.batch]) for place in places}
    first, *others = parts.values()
    joined = {name: torch.cat([first[name], *(one[name] for one in others)]) for name in first} if others else first
    return {name: value.to(device) for name, value in joined.items()}


def _inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in batch.items() if name not in NO_INPUTS}


def inputs_identity(batches: Batches) -> tuple[int, ...]:
    """Equal for tasks that hold the very same input tensors, that is the same rows."""
    return tuple(id(value) for batch in batches for name, value in batch.items() if name != "labels")


def _same_inputs(models: Sequence[nn.Module], batches: Sequence[Batches]) -> list[tuple[int, list[int]]]:
    """Indices of tasks with one body and the same tensors, in groups, each with its body's identity."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (model, own) in enumerate(zip(models, batches, strict=True)):
        groups.setdefault((id(model.base_model), *inputs_identity(own)), []).append(index)
    return [(body, tasks) for (body, *_), tasks in groups.items()]
