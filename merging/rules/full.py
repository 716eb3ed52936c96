"""Merging by whole Fisher matrices, for models of a few thousand parameters at most: what all other rules approximate."""

import torch
from jaxtyping import Float
from torch import Tensor

from merging.errors import FisherError

# Of its parameters: a matrix of this size takes 134 MB in float64.
MOST_PARAMETERS = 4096
# Of the largest eigenvalue of Σᵢ λᵢ Fᵢ: directions below it count as not excited.
SINGULAR = 1e-12


def full(
    values: Float[Tensor, " M P"],
    weights: Float[Tensor, " M"],
    fishers: Float[Tensor, " M P P"],
    *,
    damping: float = 0.0,
) -> Float[Tensor, " P"]:
    """θ* = (Σᵢ λᵢ Fᵢ)⁻¹ Σᵢ λᵢ Fᵢ θᵢ with whole matrices F; `damping` adds δ (tr F/P) I to each.

    Where the sum is singular (directions that no model's data excite), the mean decides there: the solution is the
    mean plus the least change that satisfies the equation. With damping every direction is the Fishers'.

    Raises: FisherError for models of more than 4096 parameters.
    Source: Matena & Raffel 2022, equation 2.
    """
    count = values.shape[1]
    if count > MOST_PARAMETERS:
        raise FisherError(
            f"A whole Fisher matrix is out of reach: expected at most {MOST_PARAMETERS} parameters, got {count}. "
            'Choose the rule "kfac".'
        )
    along = weights[:, None, None]
    sizes = fishers.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] / count
    damped = fishers + damping * sizes * torch.eye(count, dtype=fishers.dtype, device=fishers.device)
    mean = torch.tensordot(weights, values, dims=1)
    total = (along * damped).sum(0)
    pulled = torch.einsum("m,mpq,mq->p", weights, damped, values - mean)
    # The pseudo-inverse of what is symmetric, by its eigenvalues.
    eigenvalues, basis = torch.linalg.eigh((total + total.mT) / 2)
    kept = eigenvalues > eigenvalues[-1].clamp_min(0) * SINGULAR
    inverse = torch.where(kept, 1 / torch.where(kept, eigenvalues, 1.0), 0.0)
    return mean + basis @ (inverse * (basis.mT @ pulled))
