"""Rules on whole layers, from Kronecker factors of their Fishers: what the diagonal leaves out.

A layer is a matrix W (o, d), its bias among the d inputs as the weight of a constant 1. Its Fisher is about A ⊗ G:
A (d, d) the mean of a aᵀ over the inputs a, G (o, o) the sum of g gᵀ over an example's output gradients g, a mean over
examples and the expectation over labels. Shapes: M models, L layers of one shape; `values` W (M, L, o, d), `shares`
w (M, L) ≥ 0, `inputs` A (M, L, d, d), `outputs` G (M, L, o, o), all in float64.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from merging.errors import RecipeError
from merging.rules.settings import LEAST_DAMPING

# Of the right side's norm, at which conjugate gradients have converged; and the most steps to get there.
TOLERANCE = 1e-10
MOST_STEPS = 1000


def conditioned(
    factor: Float[Tensor, " *B d d"], *, damping: float, shrinkage: float = 1.0
) -> Float[Tensor, " *B d d"]:
    """A' = αA + (1 − α) diag A + δ (tr A/d) I, divided by tr A: α is `shrinkage`, δ `damping` (δ/d at least 3e-7).

    A factor of trace 0 becomes the damping alone. What is not symmetric by rounding becomes so.
    """
    size = factor.shape[-1]
    trace = factor.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    scaled = (factor + factor.mT) / (2 * torch.where(trace > 0, trace, torch.ones_like(trace)))
    diagonal = torch.diag_embed(scaled.diagonal(dim1=-2, dim2=-1))
    identity = torch.eye(size, dtype=factor.dtype, device=factor.device)
    return torch.lerp(diagonal, scaled, shrinkage) + max(damping / size, LEAST_DAMPING) * identity


def kfac(
    values: Float[Tensor, " M L o d"],
    shares: Float[Tensor, " M L"],
    inputs: Float[Tensor, " M L d d"],
    outputs: Float[Tensor, " M L o o"],
) -> Float[Tensor, " L o d"]:
    """The W* of Σᵢ wᵢ Gᵢ (W* − Wᵢ) Aᵢ = 0: Fisher merging with Fᵢ = Aᵢ ⊗ Gᵢ, from conditioned factors.

    Two models by `Pair`, more by conjugate gradients in float64 from the weighted mean, until
    the residual is 1e-10 of the right side. A layer that one model alone has a share in is that model's; one that none
    has a share in is the mean.

    Raises: RecipeError if that takes more than 1000 steps, or has no solution: the damping is too small.
    Source: Martens & Grosse 2015, arXiv:1503.05671, for the factors; Tam et al. 2023, arXiv:2312.04339, section 4, for merging
    by conjugate gradients.
    """
    if len(values) == 2:
        return Pair.of(values, inputs, outputs).merged(shares)
    mean = weighted_mean(values, shares)
    alone = (shares > 0).sum(0) < 2
    if bool(alone.all()):
        return mean
    solved = _conjugate_gradients(values, _portions(shares), inputs, outputs, mean)
    return torch.where(alone[:, None, None], mean, solved)


def regmean(
    values: Float[Tensor, " M L o d"], shares: Float[Tensor, " M L"], inputs: Float[Tensor, " M L d d"]
) -> Float[Tensor, " L o d"]:
    """W* = (Σᵢ wᵢ Wᵢ Aᵢ)(Σᵢ wᵢ Aᵢ)⁻¹: the layer that changes each model's own outputs least. It is `kfac` with G = I.

    By Cholesky, never by LU: `torch.linalg.solve` of several wide layers with several threads has been seen to hang in
    MKL (pytorch/pytorch#142815).

    Raises: RecipeError if that has no solution: the damping is too small.
    Source: Jin et al. 2023, arXiv:2212.09849, equation 2.
    """
    weighted = _portions(shares)[..., None, None] * inputs
    right = torch.einsum("mloi,mlij->loj", values, weighted)
    solved = torch.cholesky_solve(right.mT, _cholesky(weighted.sum(0))).mT
    return torch.where(((shares > 0).sum(0) < 2)[:, None, None], weighted_mean(values, shares), solved)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two models' layers in the bases in which both Fishers are diagonal: made once, then every λ takes two products.

    With VᵀA₁V = diag(a), Vᵀ(A₁ + A₂)V = I, and U, g likewise for G: W* = U X Vᵀ with
    X_jk = (w₁R₁ + w₂R₂)_jk / (w₁ gⱼ a_k + w₂ (1 − gⱼ)(1 − a_k)), Rᵢ = Uᵀ Gᵢ Wᵢ Aᵢ V.
    """

    values: Float[Tensor, " 2 L o d"]
    rotated: Float[Tensor, " 2 L o d"]
    left: Float[Tensor, " L o o"]
    right: Float[Tensor, " L d d"]
    curvature: Float[Tensor, " 2 L o d"]

    @staticmethod
    def of(
        values: Float[Tensor, " 2 L o d"], inputs: Float[Tensor, " 2 L d d"], outputs: Float[Tensor, " 2 L o o"]
    ) -> "Pair":
        """Factors the layers: two eigendecompositions each."""
        (right, a), (left, g) = _simultaneous(inputs), _simultaneous(outputs)
        rotated = torch.stack([left.mT @ outputs[i] @ values[i] @ inputs[i] @ right for i in range(2)])
        curvature = torch.stack([g[..., None] * a[..., None, :], (1 - g)[..., None] * (1 - a)[..., None, :]])
        return Pair(values, rotated, left, right, curvature)

    def merged(self, shares: Float[Tensor, " 2 L"]) -> Float[Tensor, " L o d"]:
        """The merge with these shares."""
        along = _portions(shares)[..., None, None]
        below = (along * self.curvature).sum(0)
        found = self.left @ ((along * self.rotated).sum(0) / torch.where(below > 0, below, 1.0)) @ self.right.mT
        alone = ((shares > 0).sum(0) < 2)[:, None, None]
        return torch.where(alone, weighted_mean(self.values, shares), found)

    @property
    def size_bytes(self) -> int:
        """The memory that is taken, the models' own values counted."""
        return sum(part.nbytes for part in (self.values, self.rotated, self.left, self.right, self.curvature))


def _simultaneous(factors: Float[Tensor, " 2 L d d"]) -> tuple[Float[Tensor, " L d d"], Float[Tensor, " L d"]]:
    """V and a of each layer's two factors: VᵀF₁V = diag(a), Vᵀ(F₁ + F₂)V = I."""
    lower = _cholesky(factors[0] + factors[1])
    whitened = _whitened(lower, factors[:1])[0]
    a, basis = torch.linalg.eigh((whitened + whitened.mT) / 2)
    return torch.linalg.solve_triangular(lower.mT, basis, upper=True), a.clamp(0, 1)


def _conjugate_gradients(
    values: Tensor, shares: Tensor, inputs: Tensor, outputs: Tensor, start: Tensor
) -> Float[Tensor, " L o d"]:
    """Preconditioned by the factors' weighted means: in the bases where those are the identity. All layers at once.

    With Ā = LLᵀ, Ḡ = KKᵀ the unknown is X = Kᵀ(W − start)L, and Aᵢ, Gᵢ become L⁻¹AᵢL⁻ᵀ, K⁻¹GᵢK⁻ᵀ.
    """
    along = shares[..., None, None]
    low_in, low_out = (_cholesky((along * factor).sum(0)) for factor in (inputs, outputs))
    weighted, outputs = along * _whitened(low_in, inputs), _whitened(low_out, outputs)

    def fisher(each: Tensor) -> Tensor:
        """Σᵢ wᵢ Gᵢ Xᵢ Aᵢ of (M, L, o, d), or of one X for all models."""
        return (outputs @ each @ weighted).sum(0)

    def rotated(matrix: Tensor) -> Tensor:
        return low_out.mT @ matrix @ low_in

    size = fisher(rotated(values)).norm(dim=(1, 2), keepdim=True)
    residual = fisher(rotated(values - start))
    found, direction = torch.zeros_like(residual), residual
    old = _dot(residual, residual)
    for _ in range(MOST_STEPS):
        if bool((old.sqrt() <= TOLERANCE * size).all()):
            apart = torch.linalg.solve_triangular(low_out.mT, found, upper=True)
            return start + torch.linalg.solve_triangular(low_in, apart, upper=False, left=False)
        curved = fisher(direction)
        step = _ratio(old, _dot(direction, curved))
        found = found + step * direction
        residual = residual - step * curved
        new = _dot(residual, residual)
        direction = residual + _ratio(new, old) * direction
        old = new
    raise RecipeError(
        f"The K-FAC merge did not converge: expected a residual of {TOLERANCE:g} within {MOST_STEPS} steps, got "
        f"{float((old.sqrt() / size).max()):.1e}. Raise the damping; 0.1 is the default."
    )


def _cholesky(factors: Float[Tensor, " L d d"]) -> Float[Tensor, " L d d"]:
    lower, failed = torch.linalg.cholesky_ex(factors)
    if bool(failed.any()):
        raise RecipeError(
            "A merge of whole layers has no solution: expected positive definite factors, got others, by rounding or by wrong "
            "numbers. Raise the damping; 0.1 is the default."
        )
    return lower


def _whitened(lower: Float[Tensor, " L d d"], factors: Float[Tensor, " M L d d"]) -> Float[Tensor, " M L d d"]:
    """L⁻¹ F L⁻ᵀ."""
    half = torch.linalg.solve_triangular(lower.expand_as(factors), factors, upper=False)
    return torch.linalg.solve_triangular(lower.expand_as(factors), half.mT, upper=False)


def _dot(first: Tensor, second: Tensor) -> Tensor:
    return (first * second).sum((1, 2), keepdim=True)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where a layer has converged, and both are."""
    return torch.where(below > 0, above / torch.where(below > 0, below, 1.0), 0.0)


def _portions(shares: Tensor) -> Tensor:
    """The shares with a sum of 1 over the models; where none has any, all have the same."""
    total = shares.sum(0)
    return torch.where(total > 0, shares / torch.where(total > 0, total, 1.0), torch.full_like(shares, 1 / len(shares)))


def weighted_mean(values: Float[Tensor, " M L o d"], shares: Float[Tensor, " M L"]) -> Float[Tensor, " L o d"]:
    """The mean by share."""
    return (_portions(shares)[..., None, None] * values).sum(0)
