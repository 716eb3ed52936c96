"""Squared gradients, one example at a time: right for every module that autograd knows.

It mixes no examples, so nothing depends on the batch size, and padding changes nothing that the
model's attention mask hides.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from merging.errors import FisherError

Columns = Callable[[Tensor, int], Tensor]


def squared_gradients(model: nn.Module, batch: Mapping[str, object], columns: Columns, sums: Sequence[Tensor]) -> int:
    """Adds Σ_examples Σ_c (∂(l_c · z)/∂θ)² to `sums`, one tensor per `model.parameters()`; returns the examples.

    `columns(logits, index)` gives the (C, K) vectors l_c for the example at `index` of the batch
    from its (K,) logits. The model must be in evaluation mode with gradients required.

    Raises: FisherError if the logits are not (N, K) with K ≥ 2, not finite, or not connected to any parameter.
    """
    parameters = list(model.parameters())
    count = batch_length(batch)
    for index in range(count):
        example = {name: _slice(value, index, count) for name, value in batch.items()}
        logits = _logits(model(**example), index)
        backward = columns(logits, index).to(logits.device, logits.dtype)
        for position, column in enumerate(backward):
            gradients = torch.autograd.grad(
                logits, parameters, column, retain_graph=position + 1 < len(backward), allow_unused=True
            )
            for total, gradient in zip(sums, gradients, strict=True):
                if gradient is not None:
                    gradient = gradient.to_dense() if gradient.is_sparse else gradient
                    total.addcmul_(gradient, gradient)
    return count


def batch_length(batch: Mapping[str, object]) -> int:
    """The number of examples: the length of the batch's tensors along their first axis.

    Raises: FisherError if there is no tensor, or if the lengths differ.
    """
    lengths = {name: len(value) for name, value in batch.items() if isinstance(value, Tensor) and value.dim() > 0}
    if not lengths or len(set(lengths.values())) > 1:
        raise FisherError(
            "The batch cannot be used: expected tensors of one length along their first axis, "
            f"got {lengths or 'no tensors'}. Give every input one row per example."
        )
    return next(iter(lengths.values()))


def _slice(value: object, index: int, count: int) -> object:
    return value[index : index + 1] if isinstance(value, Tensor) and value.dim() > 0 else value


def _logits(output: object, index: int) -> Tensor:
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.dim() != 2 or logits.shape[0] != 1 or logits.shape[1] < 2:
        got = f"logits of shape {list(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(output).__name__}"
        raise FisherError(
            "The model is not a classifier: expected forward(**batch).logits of shape (1, K) with K of 2 or more "
            f"for one example, got {got}. Use a checkpoint with a classification head."
        )
    if not logits.requires_grad:
        raise FisherError(
            "The logits do not depend on the parameters: expected a graph of gradients, got none. "
            "The model's forward must not run under torch.no_grad or detach its result."
        )
    if not torch.isfinite(logits).all():
        raise FisherError(
            f"The Fisher cannot be estimated: expected finite logits, got {logits[0].tolist()[:5]} for example {index} "
            "of a batch. Check that the checkpoint is complete and its inputs are as in its training."
        )
    return logits[0]
