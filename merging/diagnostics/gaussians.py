"""Two models of two parameters with quadratic log-likelihoods: where each merging rule puts their merge.

Near its optimum every model's log-likelihood is such a quadratic, with the Fisher information as its curvature; here it
is one everywhere, so that the best merge is known exactly.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float

from merging.errors import RecipeError
from merging.merge import merge_parameters, normalised_weights

# An eigenvalue below this part of the largest one counts as 0: its direction has no curvature.
SINGULAR = 1e-12


@dataclass(frozen=True)
class Gaussian:
    """A model with log-likelihood −½ (θ − centre)ᵀ F (θ − centre); F = [[along_1, tilt], [tilt, along_2]]."""

    centre: tuple[float, float]
    along_1: float
    along_2: float
    tilt: float = 0.0

    def __post_init__(self) -> None:
        numbers = (*self.centre, self.along_1, self.along_2, self.tilt)
        if not all(math.isfinite(number) for number in numbers):
            raise RecipeError(f"The picture cannot be drawn: expected finite numbers, got {numbers}. Set every slider.")
        if self.along_1 < 0 or self.along_2 < 0:
            raise RecipeError(
                f"The picture cannot be drawn: expected precisions of 0 or more, got {self.along_1} and {self.along_2}."
            )

    @property
    def largest_tilt(self) -> float:
        """√(F₁₁ F₂₂): with more, F would have a negative curvature in some direction."""
        return math.sqrt(self.along_1 * self.along_2)

    @property
    def fisher(self) -> Float[numpy.ndarray, " 2 2"]:
        """F, with a tilt of at most `largest_tilt`."""
        tilt = max(-self.largest_tilt, min(self.largest_tilt, self.tilt))
        return numpy.array([[self.along_1, tilt], [tilt, self.along_2]])


@dataclass(frozen=True)
class Optimum:
    """Where a rule puts the merge, and its `loss`; `unanswered` names the parameters (1, 2) that the rule says nothing on.

    There the point takes the λ-weighted mean, as `zero_rule="mean"` does in a merge.
    """

    rule: str
    point: tuple[float, float]
    loss: float
    unanswered: tuple[int, ...] = ()


def optima(models: Sequence[Gaussian], weights: Sequence[float]) -> dict[str, Optimum]:
    """The merges by `isotropic`, `diagonal` and `full` Fisher; the full one has the smallest loss of all points.

    isotropic: Σ λᵢ θᵢ. diagonal: θ*ⱼ = Σ λᵢ Fᵢⱼⱼ θᵢⱼ / Σ λᵢ Fᵢⱼⱼ. full: θ* = (Σ λᵢ Fᵢ)⁻¹ Σ λᵢ Fᵢ θᵢ, and where Σ λᵢ Fᵢ
    is singular the point of that valley that lies nearest to the isotropic one.

    Raises: RecipeError for weights that cannot be normalised.
    """
    lambdas = normalised_weights(weights, count=len(models))
    parameters = [{"θ": torch.tensor(model.centre, dtype=torch.float64)} for model in models]
    diagonals = [{"θ": torch.tensor(model.fisher.diagonal().copy())} for model in models]
    plain = merge_parameters(parameters, "isotropic", lambdas)["θ"].numpy()
    own = merge_parameters(parameters, "fisher", lambdas, fishers=diagonals, normalise="none")["θ"].numpy()
    curvature = total_fisher(models, lambdas)
    silent = tuple(index + 1 for index in (0, 1) if curvature[index, index] == 0)
    points = {"isotropic": (plain, ()), "diagonal": (own, silent), "full": _full(models, lambdas, curvature, plain)}
    return {
        rule: Optimum(rule, (float(point[0]), float(point[1])), loss_at(models, lambdas, point), unanswered)
        for rule, (point, unanswered) in points.items()
    }


def total_fisher(models: Sequence[Gaussian], weights: Sequence[float]) -> Float[numpy.ndarray, " 2 2"]:
    """Σ λᵢ Fᵢ."""
    return sum(weight * model.fisher for weight, model in zip(weights, models, strict=True))


def loss_at(models: Sequence[Gaussian], weights: Sequence[float], point: Sequence[float]) -> float:
    """M Σ λᵢ (θ − θᵢ)ᵀ Fᵢ (θ − θᵢ): with equal λ the sum of squared errors of two linear regressions on their own data."""
    offsets = [numpy.asarray(point, float) - model.centre for model in models]
    own = (w * d @ model.fisher @ d for w, d, model in zip(weights, offsets, models, strict=True))
    return float(len(models) * sum(own))


def ellipse(
    centre: Sequence[float], fisher: Float[numpy.ndarray, " 2 2"], level: float, *, reach: float, count: int = 97
) -> Float[numpy.ndarray, " N 2"]:
    """The points with (θ − centre)ᵀ F (θ − centre) = `level`, closed; no further than `reach` where F is (nearly) flat."""
    curvatures, directions = numpy.linalg.eigh(fisher)
    with numpy.errstate(divide="ignore"):
        radii = numpy.sqrt(level / numpy.clip(curvatures, 0, None))
    angles = numpy.linspace(0, 2 * math.pi, count)
    circle = numpy.stack([numpy.cos(angles), numpy.sin(angles)], axis=1)
    return numpy.asarray(centre) + (circle * numpy.minimum(radii, reach)) @ directions.T


def _full(models, lambdas, curvature, plain) -> tuple[Float[numpy.ndarray, " 2"], tuple[int, ...]]:
    pull = sum(w * model.fisher @ numpy.array(model.centre) for w, model in zip(lambdas, models, strict=True))
    curvatures, directions = numpy.linalg.eigh(curvature)
    flat = curvatures <= SINGULAR * max(curvatures.max(), 0)
    if not flat.any():
        return numpy.linalg.solve(curvature, pull), ()
    # A step from the isotropic point along the directions that have a curvature: in the others there is no answer.
    offset = directions.T @ (pull - curvature @ plain)
    step = numpy.where(flat, 0, offset / numpy.where(flat, 1, curvatures))
    touched = numpy.abs(directions[:, flat]).max(axis=1) > 1e-6
    return plain + directions @ step, tuple(index + 1 for index in (0, 1) if touched[index])
