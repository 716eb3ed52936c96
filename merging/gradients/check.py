"""The calls' answer for a few examples beside plain autograd's, one example at a time, for all parameters."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from merging.errors import FisherError
from merging.gradients.memory import Kept
from merging.gradients.outputs import likelihood_of, logits_of
from merging.gradients.per_example import batch_length, examples_of, gradients_of, requiring_gradients
from merging.gradients.recording import Recording

EXAMPLES = 3
# Of a tensor's squares, in root mean square; half precision has two to three digits itself.
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.1}
# Relative to the largest tensor: below it both sides are rounding (an attention key's bias has none in mathematics).
ROUNDING = {torch.float64: 1e-14, torch.float32: 1e-9, torch.float16: 1e-4, torch.bfloat16: 1e-4}
GROUP_BYTES = 64 * 2**20


class FallbackWarning(UserWarning):
    """Some parameters are estimated one example at a time: right, and slower."""


class Verdict(NamedTuple):
    """Why parameters cannot be had from the calls, and what one number of input makes a forward pass keep."""

    reasons: dict[str, str]
    bytes_each: float


def chosen_rows(batch: Mapping[str, object], count: int) -> list[int]:
    """The shortest, the longest and one between, where an attention mask tells lengths; else the first three."""
    mask = batch.get("attention_mask")
    if not isinstance(mask, Tensor) or mask.dim() != 2 or count <= EXAMPLES:
        return list(range(min(count, EXAMPLES)))
    order = mask.sum(1).argsort(stable=True).tolist()
    return sorted([order[0], order[len(order) // 2], order[-1]])


def checked(model: nn.Module, inputs: Mapping[str, object], recording: Recording) -> Verdict:
    """Squares of one cotangent by the calls, left in `recording.totals`, which were zero, against plain autograd's.

    Raises: FisherError if there are no usable logits, or if they depend on no parameter.
    """
    kept = recording.kept = Kept(model)
    try:
        with recording.forward(inputs, set()), kept.during_forward():
            logits = logits_of(model(**inputs))
    finally:
        recording.kept = None
    likelihood_of(model, logits, batch_length(inputs))
    if logits.requires_grad:
        recording.backward(logits, torch.stack([_probe(row) for row in logits]), index=0, last=True)
    reasons = _disagreements(model, inputs, recording.totals, logits.detach())
    numbers = sum(value.numel() for value in inputs.values() if isinstance(value, Tensor))
    return Verdict(reasons, kept.bytes / max(1, numbers))


def warn_of(fallbacks: Mapping[str, str]) -> None:
    """One warning for every reason, with the first of its parameters."""
    for reason in dict.fromkeys(fallbacks.values()):
        names = [f'"{name}"' for name, why in fallbacks.items() if why == reason]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        text = f"One example at a time, and so slower: {', '.join(names[:3])}{more}, since {reason}."
        warnings.warn(text, FallbackWarning, stacklevel=3)


def _probe(logits: Tensor) -> Tensor:
    """A cotangent of ordinary size for one example, whatever its logits: every row of numbers is a different one."""
    angles = torch.arange(1, logits.numel() + 1, device=logits.device, dtype=torch.float32)
    return angles.cos().view(logits.shape)


def _disagreements(
    model: nn.Module, inputs: Mapping[str, object], found: Mapping[str, Tensor], together: Tensor
) -> dict[str, str]:
    dtype = together.dtype
    tolerance, rounding = TOLERANCE.get(dtype, 1e-3), ROUNDING.get(dtype, 1e-9)
    errors, sizes = {}, {}
    with requiring_gradients(model, found) as parameters:
        graphs = [logits_of(model(**example)) for example in examples_of(inputs)]
        if not any(logits.requires_grad for logits in graphs):
            raise FisherError(
                "The logits do not depend on the parameters: expected a graph of gradients, got none. "
                "The model's forward must not run under torch.no_grad or detach its result."
            )
        alone = torch.cat([logits.detach() for logits in graphs])
        if alone.shape != together.shape or _distance(alone, together) > 10 * tolerance:
            return dict.fromkeys(found, "an example's logits depend on the other examples of its batch")
        for group in _groups(parameters):
            expected = {name: torch.zeros_like(found[name]) for name in group}
            for logits in graphs:
                for name, gradient in gradients_of(logits, group, _probe(logits[0])[None]).items():
                    expected[name].add_(gradient.square())
            for name, tensor in expected.items():
                count = max(1, tensor.numel()) ** 0.5
                errors[name] = float((found[name] - tensor).norm()) / count
                sizes[name] = float(tensor.norm()) / count
    largest = max(sizes.values())
    return {
        name: "its first squares disagreed with those of autograd"
        for name in sizes
        if not errors[name] <= tolerance * sizes[name] + rounding * largest
    }


def _distance(alone: Tensor, together: Tensor) -> float:
    alone, together = alone.double(), together.double()
    return float((alone - together).square().mean().sqrt() / (alone.square().mean().sqrt() + 1e-6))


def _groups(parameters: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Neighbours of together about 64 MB, so that not all gradients are held at once."""
    groups: list[dict[str, Tensor]] = [{}]
    room = GROUP_BYTES
    for name, parameter in parameters.items():
        room -= 4 * parameter.numel()
        if room < 0 and groups[-1]:
            groups.append({})
            room = GROUP_BYTES - 4 * parameter.numel()
        groups[-1][name] = parameter
    return groups
