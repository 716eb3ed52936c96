"""Two models of two parameters with quadratic log-likelihoods: where each merging rule puts their merge.

Near its optimum every model's log-likelihood is such a quadratic, with the Fisher information as its curvature; here it
is one everywhere, so that the best merge is known exactly. Such a model is a linear layer of two inputs and one output, with
Gaussian noise: the factor A of its inputs is the whole Fisher, that of its output is the number 1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float

from merging.errors import RecipeError
from merging.merge import merge_parameters
from merging.rules import RuleSettings
from merging.rules.full import full
from merging.rules.kronecker import conditioned, kfac
from merging.weights import normalised_weights

# An eigenvalue below this part of the largest one counts as 0, as in `full`: its direction has no curvature.
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

    There the point takes the λ-weighted mean, as `zero_rule="mean"` does in a merge. K-FAC has an answer wherever a model
    has any Fisher: its damping gives one.
    """

    rule: str
    point: tuple[float, float]
    loss: float
    unanswered: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """A rule of the ladder: its loss above the least there is, and what it `gained` on the rule before, < 0 if it lost."""

    rule: str
    excess: float
    gained: float | None = None  # of the first one


def optima(
    models: Sequence[Gaussian], weights: Sequence[float], settings: RuleSettings | None = None
) -> dict[str, Optimum]:
    """The merges by `isotropic`, `diagonal`, `kfac` and `full` Fisher; the full one has the smallest loss of all points.

    isotropic: Σ λᵢ θᵢ. diagonal: θ*ⱼ = Σ λᵢ Fᵢⱼⱼ θᵢⱼ / Σ λᵢ Fᵢⱼⱼ. full: θ* = (Σ λᵢ Fᵢ)⁻¹ Σ λᵢ Fᵢ θᵢ, and where Σ λᵢ Fᵢ
    is singular the point of that valley that lies nearest to the isotropic one. kfac: the same with `kept_fisher`.

    Raises: RecipeError for weights that cannot be normalised.
    """
    lambdas = normalised_weights(weights, count=len(models))
    parameters = [{"θ": torch.tensor(model.centre, dtype=torch.float64)} for model in models]
    diagonals = [{"θ": torch.tensor(model.fisher.diagonal().copy())} for model in models]
    plain = merge_parameters(parameters, "isotropic", lambdas)["θ"].numpy()
    own = merge_parameters(parameters, "fisher", lambdas, fishers=diagonals, normalise="none")["θ"].numpy()
    values, fishers = torch.stack([own["θ"] for own in parameters]), _stacked(models)
    whole = full(values, torch.tensor(lambdas, dtype=torch.float64), fishers).numpy()
    curvature = total_fisher(models, lambdas)
    silent = tuple(index + 1 for index in (0, 1) if curvature[index, index] == 0)
    points = {
        "isotropic": (plain, ()),
        "diagonal": (own, silent),
        "kfac": (_kfac(values, lambdas, fishers, settings or RuleSettings()), silent if len(silent) == 2 else ()),
        "full": (whole, _flat(curvature)),
    }
    return {
        rule: Optimum(rule, (float(point[0]), float(point[1])), loss_at(models, lambdas, point), unanswered)
        for rule, (point, unanswered) in points.items()
    }


def ladder(found: Mapping[str, Optimum]) -> list[Step]:
    """What each of the `optima` loses above the full Fisher, and gains on the one before it."""
    excess = {rule: max(0.0, own.loss - found["full"].loss) for rule, own in found.items()}
    before = [None, *list(excess.values())[:-1]]
    gains = [None if last is None else last - own for last, own in zip(before, excess.values(), strict=True)]
    return [Step(rule, own, gain) for (rule, own), gain in zip(excess.items(), gains, strict=True)]


def kept_fisher(model: Gaussian, settings: RuleSettings | None = None) -> Float[numpy.ndarray, " 2 2"]:
    """What K-FAC makes of F: αF + (1 − α) diag F + δ (tr F/2) I; α is `settings.shrinkage`, δ `settings.damping`."""
    settings = settings or RuleSettings()
    fisher = _stacked([model])
    return (_traces(fisher) * conditioned(fisher, damping=settings.damping, shrinkage=settings.shrinkage))[0].numpy()


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


def _kfac(values, lambdas, fishers, settings: RuleSettings) -> Float[numpy.ndarray, " 2"]:
    """As `LayerMerge` does it for one layer: what `conditioned` divides by goes into the shares."""
    lambdas = torch.tensor(lambdas, dtype=torch.float64)[:, None]
    shares = lambdas * _traces(fishers)[:, 0]
    shares = torch.where(shares.sum(0) > 0, shares, lambdas)
    inputs = conditioned(fishers, damping=settings.damping, shrinkage=settings.shrinkage)[:, None]
    outputs = torch.ones(len(values), 1, 1, 1, dtype=torch.float64)
    return kfac(values[:, None, None], shares, inputs, outputs)[0, 0].numpy()


def _stacked(models: Sequence[Gaussian]) -> torch.Tensor:
    return torch.stack([torch.tensor(model.fisher, dtype=torch.float64) for model in models])


def _traces(fishers: torch.Tensor) -> torch.Tensor:
    return fishers.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]


def _flat(curvature: Float[numpy.ndarray, " 2 2"]) -> tuple[int, ...]:
    """The parameters that a direction without curvature touches."""
    curvatures, directions = numpy.linalg.eigh(curvature)
    flat = curvatures <= SINGULAR * max(curvatures.max(), 0)
    touched = numpy.abs(directions[:, flat]).max(axis=1, initial=0) > 1e-6
    return tuple(index + 1 for index in (0, 1) if touched[index])
