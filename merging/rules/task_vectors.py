"""Rules on task vectors τᵢ = θᵢ − θ₀, what fine-tuning has added to the base; and slerp, which needs no base.

Shapes as in `averages`: `values` θ (M, *S), `weights` λ (M,) with Σᵢ λᵢ = 1, `base` θ₀ (*S). `ties`, `dare` and
`slerp` take a whole tensor at a time.
"""

import hashlib
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from merging.rules.averages import along_models

# Beyond this cosine two tensors are mixed on a straight line, where an arc's formula divides by almost 0.
STRAIGHT = 0.9995


def task_arithmetic(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: None = None,
    fallback: Callable | None = None,
    *,
    base: Float[Tensor, " *S"],
) -> Float[Tensor, " *S"]:
    """θ₀ + Σᵢ λᵢ τᵢ. With Σ λ = 1 that is the mean of the models: only the scale s tells them apart.

    The paper's coefficient for each of M equally weighted tasks is s/M.

    Source: Ilharco et al. 2023, arXiv:2212.04089, section 2.
    """
    return base + _summed(weights, values - base)


def ties(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: None = None,
    fallback: Callable | None = None,
    *,
    base: Float[Tensor, " *S"],
    density: float,
) -> Float[Tensor, " *S"]:
    """θ₀ + Σ_{i ∈ A} λᵢ τᵢ / Σ_{i ∈ A} λᵢ: trimmed task vectors, averaged over the models A that agree with the sign.

    Of each τᵢ the ⌊density · n⌋ numbers largest in size stay (at least one), the others are 0. The sign is that of
    Σᵢ λᵢ τᵢ, and A are the models whose own number is not 0 and has it. Trimmed tensor by tensor.

    Source: Yadav et al. 2023, arXiv:2306.01708, section 3.
    """
    trimmed = torch.stack([_largest(own, density) for own in values - base])
    weighted = along_models(weights, trimmed) * trimmed
    sign = weighted.sum(0).sign()
    agrees = (weighted.sign() == sign) & (sign != 0)
    share = (along_models(weights, trimmed) * agrees).sum(0)
    merged = (weighted * agrees).sum(0) / torch.where(share > 0, share, torch.ones_like(share))
    return base + merged


def dare(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: None = None,
    fallback: Callable | None = None,
    *,
    base: Float[Tensor, " *S"],
    density: float,
    seed: int,
    name: str,
) -> Float[Tensor, " *S"]:
    """θ₀ + Σᵢ λᵢ mᵢ∘τᵢ / density, each number of mᵢ being 1 with probability `density`, else 0.

    What is dropped is decided by the seed, the tensor's name and the model's place, on any device alike.

    Source: Yu et al. 2024, arXiv:2311.03099, section 3.
    """
    kept = torch.stack([_drawn(own, density, f"{seed} {name} {place}") for place, own in enumerate(values)])
    return base + _summed(weights, (values - base) * kept.to(values)) / density


def slerp(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: None = None,
    fallback: Callable | None = None,
) -> Float[Tensor, " *S"]:
    """[sin((1−t)Ω) θ₁ + sin(tΩ) θ₂] / sin Ω, t = λ₂, Ω the angle between the two tensors: along the arc between them.

    Where they are nearly parallel, or one is 0, it is the straight line (1 − t) θ₁ + t θ₂.

    Source: Shoemake 1985, section 3.3; tensor by tensor as in mergekit.
    """
    first, second = values
    norms = first.norm() * second.norm()
    cosine = float((first * second).sum() / norms) if norms > 0 else 1.0
    if abs(cosine) > STRAIGHT:
        return torch.lerp(first, second, weights[1])
    angle = torch.arccos(values.new_tensor(cosine))
    return (torch.sin(weights[0] * angle) * first + torch.sin(weights[1] * angle) * second) / torch.sin(angle)


def ugm(
    values: Float[Tensor, " M *S"],
    weights: Float[Tensor, " M"],
    fishers: Float[Tensor, " M *S"],
    fallback: Callable[[], Float[Tensor, " *S"]],
    *,
    base: Float[Tensor, " *S"],
    lambdas: Float[Tensor, " M"],
    prior: float,
) -> Float[Tensor, " *S"]:
    """θ₀ + Σᵢ λᵢ (H₀ + Fᵢ) τᵢ / (H₀ + Σᵢ λᵢ Fᵢ), with H₀ = `prior` · the mean of Σᵢ λᵢ Fᵢ over the tensor.

    `weights` go with the Fishers (λ over a Fisher's scale), `lambdas` have the sum 1.

    H₀ = 0 is Fisher merging, H₀ → ∞ task arithmetic. The paper's H₀ is the base's own Hessian; here it is one number
    for each tensor, which needs no estimate.

    Source: Daheim et al. 2024, arXiv:2310.12808, equation 12.
    """
    pulled = along_models(weights, fishers) * fishers
    total = pulled.sum(0)
    ahead = prior * total.mean()
    bottom = total + ahead
    moved = _summed(lambdas, values - base) * ahead + (pulled * (values - base)).sum(0)
    merged = base + moved / torch.where(bottom > 0, bottom, torch.ones_like(bottom))
    return torch.where(bottom > 0, merged, fallback()) if bool((bottom == 0).any()) else merged


def _summed(weights: Tensor, vectors: Tensor) -> Tensor:
    return torch.tensordot(weights, vectors, dims=1)


def _largest(vector: Tensor, density: float) -> Tensor:
    """The vector with all but its largest numbers set to 0; which of equal ones stay is left open."""
    keep = max(1, int(density * vector.numel()))
    if keep >= vector.numel():
        return vector
    flat = vector.reshape(-1)
    places = flat.abs().topk(keep, sorted=False).indices
    return torch.zeros_like(flat).index_copy_(0, places, flat[places]).view_as(vector)


def _drawn(like: Tensor, density: float, key: str) -> Tensor:
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big"))
    return (torch.rand(like.shape, generator=generator) < density).to(like.device)
