"""How one parameter of all models becomes one: pure functions.

Shapes: M models, one parameter of shape S. `values` is (M, *S); `weights` λ is (M,), λᵢ ≥ 0 and
Σᵢ λᵢ = 1; `fishers` F is (M, *S), F ≥ 0, already floored and normalised; `fallback` gives the
value (*S) of coordinates that no model's Fisher speaks for, and is called only where there are some.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Rule(NamedTuple):
    """A way of merging: its function, and whether it needs the models' Fishers."""

    combine: Callable[..., Tensor]
    needs_fisher: bool


def isotropic(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: Float[Tensor, " M *S"] | None = None,
    fallback: Callable[[], Float[Tensor, " *S"]] | None = None,
) -> Float[Tensor, " *S"]:
    """The weighted mean, Σᵢ λᵢ θᵢ: Fisher merging with F ≡ 1.

    Source: Matena & Raffel 2022, equation 1.
    """
    return _weighted_sum(values, _along_models(weights, values).expand_as(values))


def fisher(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: Float[Tensor, " M *S"],
    fallback: Callable[[], Float[Tensor, " *S"]],
) -> Float[Tensor, " *S"]:
    """The Fisher-weighted mean, θ* = Σᵢ λᵢ Fᵢ θᵢ / Σᵢ λᵢ Fᵢ; `fallback` where the denominator is 0.

    Source: Matena & Raffel 2022, equation 3.
    """
    mixing = mixing_weights(fishers, weights)
    merged = _weighted_sum(values, mixing)
    unowned = mixing.sum(0) == 0
    return torch.where(unowned, fallback(), merged) if unowned.any() else merged


def mixing_weights(fishers: Float[Tensor, " M *S"], weights: Float[Tensor, " M"]) -> Float[Tensor, " M *S"]:
    """Each model's share of a coordinate, λᵢ Fᵢ / Σⱼ λⱼ Fⱼ; 0 for all models where the sum is 0.

    Every coordinate is first divided by its largest Fisher, so that a common factor of 1e-30 (or a
    Fisher near the smallest representable number) changes nothing.
    """
    along = _along_models(weights, fishers)
    counted = fishers * (along > 0)
    peak = counted.amax(0)
    scaled = along * (counted / torch.where(peak > 0, peak, torch.ones_like(peak)))
    total = scaled.sum(0)
    return scaled / torch.where(total > 0, total, torch.ones_like(total))


def _weighted_sum(values: Tensor, mixing: Tensor) -> Tensor:
    """Σᵢ wᵢ θᵢ, kept between the smallest and the largest model: rounding must not leave their range."""
    return torch.clamp((mixing * values).sum(0), values.amin(0), values.amax(0))


def _along_models(weights: Tensor, like: Tensor) -> Tensor:
    return weights.reshape(-1, *[1] * (like.dim() - 1))


RULES: dict[str, Rule] = {
    "isotropic": Rule(isotropic, needs_fisher=False),
    "fisher": Rule(fisher, needs_fisher=True),
}
