"""One example at a time: slower, and right for every module that autograd knows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from merging.errors import FisherError, quoted
from merging.gradients.factors import Columns
from merging.gradients.memory import is_out_of_memory


def add_by_loop(
    model: nn.Module,
    inputs: Mapping[str, object],
    columns_of: Callable[[object, Mapping[str, object], int], tuple[Tensor, Columns]],
    totals: Mapping[str, Tensor],
    is_wanted: Callable[[str, int], bool],
) -> None:
    """Adds Σ_examples Σ_c (∂(l_c · z)/∂θ)² to the `totals` of every parameter and column c that `is_wanted`.

    `columns_of(output, inputs, index)` gives the logits and the cotangents of the example at `index` from the model's
    output for it alone. `totals` maps names of parameters to their accumulators.
    """
    with requiring_gradients(model, totals) as parameters:
        for index, example in enumerate(examples_of(inputs)):
            logits, columns = columns_of(model(**example), example, index)
            for c in range(columns.count):
                wanted = {name: parameters[name] for name in totals if is_wanted(name, c)}
                if wanted and logits.requires_grad:
                    for name, gradient in gradients_of(logits, wanted, columns.column(c)).items():
                        # Not in place: autograd may hand out one tensor for two parameters.
                        totals[name].addcmul_(gradient, gradient)


def gradients_of(logits: Tensor, parameters: Mapping[str, Tensor], column: Tensor) -> dict[str, Tensor]:
    """∂(l · z)/∂θ of those parameters that the logits depend on, in float32 at least; the graph stays.

    The cotangent travels at unit size, since a confident example's would vanish in half precision.
    """
    size = column.norm()
    if size == 0:
        return {}
    unit = logits.dtype in (torch.float16, torch.bfloat16)
    cotangent = (column / size if unit else column).to(logits)
    with refusing_in_words(parameters):
        gradients = torch.autograd.grad(
            logits, list(parameters.values()), cotangent, retain_graph=True, allow_unused=True
        )
    found = {}
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            wide = dense.to(torch.promote_types(dense.dtype, torch.float32))
            found[name] = wide * size.to(wide) if unit else wide
    return found


@contextmanager
def refusing_in_words(names: Iterable[str]) -> Iterator[None]:
    """Raises: FisherError, which names the parameters, where autograd itself cannot differentiate the model."""
    try:
        yield
    except RuntimeError as problem:
        if is_out_of_memory(problem):
            raise
        raise FisherError(
            f"The Fisher of {quoted(names)} cannot be computed: expected a model that autograd can differentiate, "
            f"got '{str(problem).strip().splitlines()[0]:.300}'. Change the model as it says."
        ) from problem


@contextmanager
def requiring_gradients(model: nn.Module, names: Mapping[str, object]) -> Iterator[dict[str, nn.Parameter]]:
    """The named parameters, which require gradients inside."""
    chosen = {name: parameter for name, parameter in model.named_parameters() if name in names}
    before = {name: parameter.requires_grad for name, parameter in chosen.items()}
    try:
        for parameter in chosen.values():
            parameter.requires_grad_(True)
        yield chosen
    finally:
        for name, parameter in chosen.items():
            parameter.requires_grad_(before[name])


def batch_length(batch: Mapping[str, object]) -> int:
    """The number of examples: the length of the batch's tensors along their first axis.

    Raises: FisherError if there is no tensor, if the lengths differ, or if they are 0.
    """
    lengths = {name: len(value) for name, value in batch.items() if isinstance(value, Tensor) and value.dim() > 0}
    if not lengths or len(set(lengths.values())) > 1 or 0 in lengths.values():
        raise FisherError(
            "The batch cannot be used: expected tensors of one length, 1 or more, along their first axis, "
            f"got {lengths or 'no tensors'}. Give every input one row per example."
        )
    return next(iter(lengths.values()))


def rows_of(batch: Mapping[str, object], rows: slice | list[int]) -> dict[str, object]:
    """Some examples of a batch; what has no axis of examples stays as it is."""
    return {n: value[rows] if isinstance(value, Tensor) and value.dim() > 0 else value for n, value in batch.items()}


def examples_of(batch: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Every example of a batch, as a batch of its own."""
    return (rows_of(batch, slice(index, index + 1)) for index in range(batch_length(batch)))


def numbers_each(batch: Mapping[str, object]) -> int:
    """How many numbers one example has in all its inputs."""
    return sum(value[0].numel() for value in batch.values() if isinstance(value, Tensor) and value.dim() > 0)


def trimmed(batch: Mapping[str, object]) -> dict[str, object]:
    """Without the last tokens that are padding in every example of a batch of texts."""
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return dict(batch)
    length = max(1, int(mask.any(0).nonzero().max()) + 1) if mask.any() else mask.shape[1]
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    return {name: value[:, :length] if name in names else value for name, value in batch.items()}
