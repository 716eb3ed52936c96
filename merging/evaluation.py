"""What models predict on tasks."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from merging.device_memory import DeviceMemory, cpu_copies
from merging.devices import fitting_threads
from merging.ensemble import average_probabilities
from merging.forward_passes import Batches, forward_passes, joined_inputs
from merging.tasks import drawn_rows


@dataclass(frozen=True, eq=False)
class Prediction:
    """The probabilities that a model gives to the K labels of N examples, and the right labels."""

    probabilities: Float[numpy.ndarray, " N K"]
    labels: Int[numpy.ndarray, " N"]

    @property
    def correct(self) -> Bool[numpy.ndarray, " N"]:
        """Which examples' most probable label is the right one."""
        return self.probabilities.argmax(1) == self.labels

    def drawn(self, examples: int, seed: int) -> "Prediction":
        """What is predicted for the rows that a task draws of these."""
        rows = drawn_rows(len(self.labels), examples, seed)
        return Prediction(self.probabilities[rows], self.labels[rows])


# What no weight changes: each single model's predictions by name and task; the ensemble's by task.
Fixed = tuple[dict[str, dict[str, Prediction]], dict[str, Prediction]]


def ensembled(members: Sequence[Prediction]) -> Prediction:
    """The output ensemble of models that answer the same rows."""
    return Prediction(average_probabilities([one.probabilities for one in members]), members[0].labels)


def predict(
    models: Sequence[nn.Module],
    batches: Sequence[Batches],
    *,
    between: Callable[[], None] | None = None,
    memory: DeviceMemory | None = None,
) -> list[Prediction]:
    """What each model predicts on its batches: one `Prediction` per pair. `between` batches something may be called.

    Examples come in the order of `rows`, where batches have them, else as they come. Models that share one body
    module and the same input tensors (the tasks of one dataset) share the body's forward pass, too. Where memory runs
    out, batches are halved, then the CPU takes over; `memory` remembers and tells it.

    Raises: DeviceError if one example does not fit into the CPU's memory.
    """
    memory = memory or DeviceMemory(_device_of(models[0]).type)

    def on(device: str) -> list[Prediction]:
        if device == memory.device:
            return _predict(models, batches, between, partial(memory.in_parts, device=device))
        moved = on_device(batches, device)
        return _predict(cpu_copies(models), moved, between, partial(memory.in_parts, device=device))

    return memory.or_on_cpu(on, "the evaluation")


def _predict(
    models: Sequence[nn.Module],
    batches: Sequence[Batches],
    between: Callable[[], None] | None,
    in_parts: Callable[..., list[Tensor]],
) -> list[Prediction]:
    found: list[dict[int, Tensor]] = [{} for _ in models]
    models = _remembering_bodies(models)
    with fitting_threads(models[0]), torch.inference_mode():
        for places in forward_passes(models, batches):
            answering = {id(models[place.task]): models[place.task] for place in places}

            def probabilities(
                inputs: Mapping[str, Tensor], answering: dict[int, nn.Module] = answering
            ) -> list[Tensor]:
                return [model(**inputs).logits.float().softmax(-1).cpu() for model in answering.values()]

            if between:
                between()
            inputs = joined_inputs(places, batches, _device_of(models[places[0].task]))
            answers = dict(zip(answering, in_parts(probabilities, inputs), strict=True))
            for place in places:
                found[place.task][place.batch] = answers[id(models[place.task])][place.rows]
    return [
        _in_order(torch.cat([parts[index] for index in range(len(own))]).numpy(), own)
        for parts, own in zip(found, batches, strict=True)
    ]


def with_body(model: nn.Module, body: nn.Module) -> nn.Module:
    """`model` with another body: a view that shares both modules' tensors."""
    view = copy.copy(model)
    view._modules = {**model._modules, model.base_model_prefix: body}
    return view


def share_equal_inputs(batches: Sequence[Batches]) -> list[Batches]:
    """The same batches, where those with equal input tensors hold the very same ones, so that `predict` sees it."""
    shared: list[Batches] = []
    for own in batches:
        twin = next((other for other in shared if _equal_inputs(own, other)), own)
        pairs = zip(own, twin, strict=True)
        shared.append([{**{name: two[name] for name in one}, "labels": one["labels"]} for one, two in pairs])
    return shared


def on_device(batches: list[Batches], device: str) -> list[Batches]:
    """The batches on a device; what was one tensor stays one tensor."""
    moved: dict[int, Tensor] = {}

    def move(tensor: Tensor) -> Tensor:
        return moved.setdefault(id(tensor), tensor.to(device))

    return [[{name: move(tensor) for name, tensor in batch.items()} for batch in own] for own in batches]


def _device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _in_order(probabilities: Float[numpy.ndarray, " N K"], batches: Batches) -> Prediction:
    labels = numpy.concatenate([batch["labels"].cpu().numpy() for batch in batches])
    if "rows" not in batches[0]:
        return Prediction(probabilities, labels)
    order = numpy.argsort(numpy.concatenate([batch["rows"].cpu().numpy() for batch in batches]))
    return Prediction(probabilities[order], labels[order])


def _equal_inputs(own: Batches, other: Batches) -> bool:
    return len(own) == len(other) and all(
        one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one if name != "labels")
        for one, two in zip(own, other, strict=True)
    )


def _remembering_bodies(models: Sequence[nn.Module]) -> list[nn.Module]:
    """The models as views whose bodies answer a repeated call on the same tensors with their last output.

    The models themselves stay as they are: others may copy them, or predict with them, meanwhile.
    """
    bodies: dict[int, nn.Module] = {}
    for body in (model.base_model for model in models if model.base_model is not model):
        if id(body) not in bodies:
            bodies[id(body)] = copy.copy(body)
            bodies[id(body)].forward = _remembering(body.forward)
    return [
        with_body(model, bodies[id(model.base_model)]) if model.base_model is not model else model for model in models
    ]


def _remembering(forward: Callable[..., object]) -> Callable[..., object]:
    last: dict[str, object] = {}

    def remembered(*arguments: object, **named: object) -> object:
        given = [*arguments, *named.items()]
        # The tensors themselves are kept beside their ids, so that no id is used anew.
        key = [
            id(item[1])
            if isinstance(item, tuple) and isinstance(item[1], Tensor)
            else id(item)
            if isinstance(item, Tensor)
            else repr(item)
            for item in given
        ]
        if last.get("key") != key:
            last.update(key=key, given=given, output=forward(*arguments, **named))
        return last["output"]

    return remembered
