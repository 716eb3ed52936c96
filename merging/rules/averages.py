"""Weighted means of one parameter of all models, coordinate by coordinate or row by row: pure functions.

Shapes: M models, one parameter of shape S. `values` is (M, *S); `weights` λ is (M,), λᵢ ≥ 0 and, for
`isotropic`, Σᵢ λᵢ = 1; `fishers` F is (M, *S), F ≥ 0, already floored, and normalised unless λ is divided
by its scale instead; `fallback` gives the value (*S) of coordinates that no model's Fisher speaks for, and
is called only where there are some.
"""

from collections.abc import Callable
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor


def isotropic(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: Float[Tensor, " M *S"] | None = None,
    fallback: Callable[[], Float[Tensor, " *S"]] | None = None,
) -> Float[Tensor, " *S"]:
    """The weighted mean, Σᵢ λᵢ θᵢ: Fisher merging with F ≡ 1.

    Source: Matena & Raffel 2022, equation 1.
    """
    return _mean(values, along_models(weights if len(weights) > 2 else weights[1:], values))


def fisher(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: Float[Tensor, " M *S"],
    fallback: Callable[[], Float[Tensor, " *S"]],
) -> Float[Tensor, " *S"]:
    """The Fisher-weighted mean, θ* = Σᵢ λᵢ Fᵢ θᵢ / Σᵢ λᵢ Fᵢ; `fallback` where the denominator is 0.

    Source: Matena & Raffel 2022, equation 3.
    """
    scaled, total, unowned = _scaled(fishers, weights)
    # Of two models one share is enough.
    merged = _mean(values, scaled if len(scaled) > 2 else scaled[1:], total)
    return merged if unowned is None else torch.where(unowned, fallback(), merged)


def row(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: Float[Tensor, " M *S"],
    fallback: Callable[[], Float[Tensor, " *S"]],
) -> Float[Tensor, " *S"]:
    """One scalar for each row of a matrix: θ*_r = Σᵢ λᵢ fᵢᵣ θᵢᵣ / Σᵢ λᵢ fᵢᵣ with fᵢᵣ = Σ_c Fᵢᵣ_c.

    A row is what the first axis counts: an output unit, but for GPT-2's Conv1D, where it is an input. Of a vector
    each coordinate is a row, and of one number the rule is `fisher`.

    Source: block scalars between the diagonal and a scalar for each tensor; Kunstner et al. 2019, section 2, on blocks.
    """
    if fishers.dim() > 2:
        fishers = fishers.flatten(2).sum(2).reshape(*fishers.shape[:2], *[1] * (fishers.dim() - 2)).expand_as(fishers)
    return fisher(values, weights, fishers, fallback)


def mixing_weights(fishers: Float[Tensor, " M *S"], weights: Float[Tensor, " M"]) -> Float[Tensor, " M *S"]:
    """Each model's share of a coordinate, λᵢ Fᵢ / Σⱼ λⱼ Fⱼ; 0 for all models where the sum is 0.

    A common factor of 1e-30 (or a Fisher near the smallest representable number) changes nothing.
    """
    scaled, total, _ = _scaled(fishers, weights)
    return scaled / total


def _scaled(fishers: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """λF up to a factor for each coordinate; their sum, or 1 where it is 0; and where that is, None if nowhere."""
    along = along_models(weights, fishers)
    scaled = along * fishers
    total = _summed(scaled)
    if _has_all_digits(total):
        return scaled, total, None
    # Every coordinate is divided by its largest Fisher first.
    counted = fishers * (along > 0)
    peak = counted.amax(0)
    scaled = along * (counted / torch.where(peak > 0, peak, torch.ones_like(peak)))
    total = _summed(scaled)
    unowned = total == 0
    return scaled, torch.where(unowned, torch.ones_like(total), total), unowned if unowned.any() else None


def _has_all_digits(total: Tensor) -> bool:
    """Whether every number is so far from 0 and ∞ that what it was summed from has lost no digit that counts."""
    if total.numel() == 0:
        return True
    limits = torch.finfo(total.dtype)
    smallest, largest = (float(value) for value in torch.aminmax(total))
    return smallest >= limits.tiny / limits.eps and largest <= limits.max


def _mean(values: Tensor, parts: Tensor, total: Tensor | None = None) -> Tensor:
    """Σᵢ wᵢ θᵢ with w = `parts` / `total`, of sum 1, between the smallest and the largest model in spite of rounding.

    Of two models only the second one's part is given; then it is θ₁ + w₂ (θ₂ − θ₁), in half the time.
    """
    mixing = parts if total is None else parts.div_(total)
    if len(values) == 2:
        return torch.lerp(values[0], values[1], mixing[0].expand_as(values[1]))
    lowest, highest = (reduce(bound, values.unbind()) for bound in (torch.minimum, torch.maximum))
    return _summed(mixing * values).clamp_(lowest, highest)


def _summed(tensors: Tensor) -> Tensor:
    """The sum over models, one after the other: several times faster than `sum(0)`, which was written for long axes."""
    return reduce(torch.Tensor.add_, tensors[2:].unbind(), tensors[0] + tensors[1]) if len(tensors) > 1 else tensors[0]


def along_models(weights: Float[Tensor, " M"], like: Float[Tensor, " M *S"]) -> Float[Tensor, " M *one"]:
    """λ shaped so that it multiplies each model's tensor."""
    return weights.reshape(-1, *[1] * (like.dim() - 1))
