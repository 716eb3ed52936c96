"""The diagonal Fisher information of a classifier on a task."""

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from merging.devices import fitting_threads
from merging.errors import FisherError, require_choice
from merging.gradients import LABELS, columns_for, squared_gradients
from merging.gradients.per_example import batch_length

OnProgress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Fisher(Mapping[str, Tensor]):
    """A diagonal Fisher: one tensor ≥ 0 per parameter, a mean over `examples`; a mapping by parameter name."""

    tensors: Mapping[str, Tensor]
    examples: int
    labels: str = "exact"
    seed: int = 0

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def to(self, device: str | torch.device) -> "Fisher":
        """The same Fisher on another device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return Fisher(moved, self.examples, self.labels, self.seed)

    def save(self, path: Path) -> None:
        """Writes a safetensors file, with the estimator's settings in its metadata."""
        about = {"examples": self.examples, "labels": self.labels, "seed": self.seed}
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, path, metadata={"fisher": json.dumps(about)})

    @staticmethod
    def load(path: Path) -> "Fisher":
        """Reads what `save` wrote. Raises: FisherError if it is not such a file."""
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["fisher"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            return Fisher(tensors, int(about["examples"]), str(about["labels"]), int(about["seed"]))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as problem:
            raise FisherError(
                f'"{Path(path).name}" cannot be read: expected a Fisher in safetensors, got {problem!s:.120}. '
                "Delete the file; it is estimated again."
            ) from problem


# Also for callers in inference mode, whose new tensors (sums, a float32 copy) could not take part in gradients.
@torch.inference_mode(False)
def diagonal_fisher(
    model: nn.Module,
    batches: Iterable[Mapping[str, object]],
    labels: str = "exact",
    *,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Fisher:
    """The diagonal Fisher information, a mean over examples, one tensor per parameter of `model`.

    Fⱼ = 1/N Σₙ E_{y∼p(y|xₙ,θ)} [(∂ log p(y|xₙ,θ)/∂θⱼ)²], in nats², in evaluation mode, one example at a
    time, in float32 (float64 for a float64 model; a half-precision model is computed in a float32 copy).
    `exact` sums over all K labels by K − 1 backward passes (one for K = 2); `sampled` draws one label per
    example from the model, by `seed` and the example's position; `empirical` takes the data's labels and is
    not the Fisher: it vanishes as the model fits its data. `exact` and `sampled` never look at the labels.

    `model(**batch)` gives `.logits` of shape (N, K); a batch is a mapping of tensors with one row per
    example, and its `labels`, where present, are not passed to the model. Tied parameters are one tensor.
    Parameters that the logits do not depend on get zeros. Mode and `requires_grad` are restored. `on_progress`
    is called after every batch and may raise `Cancelled`.

    Raises: FisherError, RecipeError.
    Source: Matena & Raffel 2022, equation 4; Kunstner et al. 2019 on the empirical Fisher.
    """
    require_choice("kind of labels", labels, LABELS)
    model = _at_least_float32(model)
    generator = numpy.random.default_rng(seed)
    total = len(batches) if hasattr(batches, "__len__") else None
    sums = [torch.zeros_like(parameter, requires_grad=False) for parameter in model.parameters()]
    if not sums:
        raise FisherError("The model has no parameters: expected at least one, got none. Use another checkpoint.")
    device, dtype = sums[0].device, sums[0].dtype
    examples = 0
    with _ready_for_gradients(model), fitting_threads(model):
        for done, batch in enumerate(batches, start=1):
            inputs, targets = _split_labels(batch, labels)
            inputs = {name: _placed(value, device, dtype) for name, value in inputs.items()}

            def columns(logits: Tensor, index: int, targets: list[int] | None = targets) -> Tensor:
                target = None if targets is None else _checked(targets[index], len(logits))
                return columns_for(logits, labels, generator=generator, target=target)

            examples += squared_gradients(model, inputs, columns, sums)
            if on_progress:
                on_progress(done / total if total else 0.0, f"{examples} examples")
    if examples == 0:
        raise FisherError("The Fisher cannot be estimated: expected at least one example, got none. Check the split.")
    names = [name for name, _ in model.named_parameters()]
    return Fisher({name: total / examples for name, total in zip(names, sums, strict=True)}, examples, labels, seed)


@contextmanager
def _ready_for_gradients(model: nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout noise, fixed batch statistics) with gradients on; restored afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    required = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _ in required:
            parameter.requires_grad_(True)
        with torch.enable_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, before in required:
            parameter.requires_grad_(before)


def _at_least_float32(model: nn.Module) -> nn.Module:
    half = any(parameter.dtype in (torch.float16, torch.bfloat16) for parameter in model.parameters())
    return copy.deepcopy(model).float() if half else model


def _placed(value: object, device: torch.device, dtype: torch.dtype) -> object:
    if not isinstance(value, Tensor):
        return value
    return value.to(device, dtype) if value.is_floating_point() else value.to(device)


def _split_labels(batch: Mapping[str, object], labels: str) -> tuple[dict[str, object], list[int] | None]:
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    if labels != "empirical":
        return inputs, None
    if "labels" not in batch:
        raise FisherError(
            'The empirical Fisher needs the data\'s labels: expected "labels" in every batch, '
            f'got {sorted(batch)}. Add them, or choose labels="exact".'
        )
    targets = [int(label) for label in batch["labels"]]
    if len(targets) != batch_length(inputs):
        raise FisherError(
            f"The labels do not fit: expected {batch_length(inputs)}, one per example, got {len(targets)}."
        )
    return inputs, targets


def _checked(target: int, classes: int) -> int:
    if not 0 <= target < classes:
        raise FisherError(
            f"A label does not fit the model: expected 0 to {classes - 1}, got {target}. "
            "Check the task's label column and names."
        )
    return target
