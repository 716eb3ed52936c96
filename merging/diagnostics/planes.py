"""The plane through three models: the loss on it, and how far off it the merges lie."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float
from torch import Tensor

from merging.checkpoints import body_prefix
from merging.diagnostics.distances import base_of
from merging.errors import RecipeError, require_choice
from merging.evaluation import Prediction
from merging.prepared import Prepared
from merging.recipe import Recipe

OnProgress = Callable[[float, str], None]
Parameters = Mapping[str, Tensor]

BASE = "base"
POINTS = 13
MARGIN = 0.25  # of the corners' extent, on each side
# Below this part of the longer side, the second side points nowhere that rounding has not made.
FLATTEST = 1e-4


@dataclass(frozen=True, eq=False)
class Plane:
    """θ = origin + x e₁ + y e₂, with orthonormal e₁ and e₂ over the parameters that are merged."""

    origin: Parameters
    axes: tuple[Parameters, Parameters]

    def at(self, x: float, y: float) -> dict[str, Tensor]:
        """The parameters at a point."""
        first, second = self.axes
        return {name: (own + x * first[name] + y * second[name]) for name, own in self.origin.items()}

    def project(self, parameters: Parameters) -> tuple[float, float, float]:
        """Where parameters fall on the plane, x and y, and their distance off it."""
        away = {name: parameters[name].detach() - own for name, own in self.origin.items()}
        x, y = (_dot(away, axis) for axis in self.axes)
        first, second = self.axes
        rest = {name: own - x * first[name] - y * second[name] for name, own in away.items()}
        return x, y, _dot(rest, rest) ** 0.5


@dataclass(frozen=True)
class PlanePoint:
    """A model or a merge: where it falls on the plane, its distance `off` it, and its own mean loss."""

    name: str
    x: float
    y: float
    off: float
    loss: float


@dataclass(frozen=True, eq=False)
class LossPlane:
    """The mean cross-entropy over the tasks of a split, at `x` (X,) and `y` (Y,): `loss` (Y, X); corners, then merges."""

    x: Float[numpy.ndarray, " X"]
    y: Float[numpy.ndarray, " Y"]
    loss: Float[numpy.ndarray, " Y X"]
    corners: tuple[PlanePoint, ...]
    merges: tuple[PlanePoint, ...]
    split: str


def loss_plane(
    prepared: Prepared,
    recipe: Recipe,
    corners: Sequence[str],
    *,
    split: str = "validation",
    points: int = POINTS,
    on_progress: OnProgress | None = None,
) -> LossPlane:
    """The loss on the plane through three of the models, or two and the recipe's base (`BASE`), and where merges lie.

    Buffers (such as batch-norm statistics) are averaged by each point's own parts of the corners, negative ones as 0.

    Raises: RecipeError unless three different corners are named that span a plane.
    """
    report = on_progress or (lambda fraction, text: None)
    bodies = _bodies(prepared, recipe, corners)
    plane = plane_through(list(bodies.values()), list(bodies))
    places = [plane.project(body)[:2] for body in bodies.values()]
    merges = {rule: prepared.merge(recipe, rule=rule) for rule in ("isotropic", "fisher")}
    fallen = {rule: plane.project(merged) for rule, merged in merges.items()}
    every = numpy.array([*places, *((x, y) for x, y, _ in fallen.values())])
    xs, ys = (_steps(every[:, axis], points) for axis in (0, 1))

    def loss_of(parameters: Parameters, weights: Sequence[float]) -> float:
        return mean_loss(prepared.predict_merged(_as_models(parameters, bodies), split, list(weights)))

    loss = numpy.empty((points, points))
    for row, y in enumerate(ys):
        for column, x in enumerate(xs):
            done = row * points + column
            report(done / (points * points + 5), f"loss at point {done + 1} of {points * points}")
            parts = _weights(prepared, recipe, list(bodies), barycentric(places, x, y))
            loss[row, column] = loss_of(plane.at(x, y), parts)
    report(points * points / (points * points + 5), "loss of the models and merges")
    corner_points = []
    for place, (name, body) in enumerate(bodies.items()):
        parts = _weights(prepared, recipe, list(bodies), [float(place == other) for other in range(3)])
        corner_points.append(PlanePoint(name, *places[place], 0.0, loss_of(body, parts)))
    merge_points = [PlanePoint(rule, *fallen[rule], loss_of(merged, recipe.weights)) for rule, merged in merges.items()]
    return LossPlane(xs, ys, loss, tuple(corner_points), tuple(merge_points), split)


def plane_through(bodies: Sequence[Parameters], names: Sequence[str]) -> Plane:
    """The plane through three sets of parameters, by Gram and Schmidt; the first is its origin, e₁ points to the second.

    Raises: RecipeError if they lie on a line.
    """
    first, second, third = ({name: own.detach() for name, own in body.items()} for body in bodies)
    along, across = _minus(second, first), _minus(third, first)
    longest = max(_dot(along, along), _dot(across, across)) ** 0.5
    length = _dot(along, along) ** 0.5
    if length > FLATTEST * longest:
        along = {name: own / length for name, own in along.items()}
        part = _dot(across, along)
        across = {name: own - part * along[name] for name, own in across.items()}
    height = _dot(across, across) ** 0.5
    if not (length > FLATTEST * longest and height > FLATTEST * longest):
        shown = ", ".join(f'"{name}"' for name in names)
        raise RecipeError(
            f"There is no plane through {shown}: expected three models that differ, got models on one line (or two that "
            "are equal). Choose others."
        )
    return Plane(first, (along, {name: own / height for name, own in across.items()}))


def barycentric(corners: Sequence[tuple[float, float]], x: float, y: float) -> list[float]:
    """The parts of three corners of the plane in a point; they sum to 1 and may be negative outside."""
    system = numpy.array([[corner[0] for corner in corners], [corner[1] for corner in corners], [1.0, 1.0, 1.0]])
    return [float(part) for part in numpy.linalg.solve(system, numpy.array([x, y, 1.0]))]


def mean_loss(predictions: Mapping[str, Prediction]) -> float:
    """The mean over the tasks of −mean log p(right label); p below what float32 holds counts as its smallest number."""
    losses = []
    for one in predictions.values():
        right = one.probabilities[numpy.arange(len(one.labels)), one.labels].astype(float)
        losses.append(float(-numpy.log(numpy.maximum(right, numpy.finfo(numpy.float32).tiny)).mean()))
    return sum(losses) / len(losses)


def _bodies(prepared: Prepared, recipe: Recipe, corners: Sequence[str]) -> dict[str, Parameters]:
    known = dict(zip(prepared.names, prepared.parameters(), strict=True))
    if len(corners) != 3 or len(set(corners)) != 3:
        raise RecipeError(
            f"A plane needs three corners: expected three different models, got {len(set(corners))}. "
            "Choose three; the base counts as one."
        )
    found: dict[str, Parameters] = {}
    for corner in corners:
        if corner == BASE and BASE not in known:
            found[corner] = _base(prepared, recipe, known)
        else:
            found[corner] = known[require_choice("model", corner, known)]
    return found


def _base(prepared: Prepared, recipe: Recipe, known: Mapping[str, Parameters]) -> Parameters:
    base = base_of(prepared, recipe, download=True)
    if base is None:
        raise RecipeError(
            "The plane cannot go through the base: expected a base in the recipe, got none. Choose three models."
        )
    return base_with_head(prepared, base)


def base_with_head(prepared: Prepared, base: Parameters) -> dict[str, Tensor]:
    """The base's body; where heads are merged, too, with the first model's head, for its own says nothing."""
    prefix, own = body_prefix(prepared.modules[0]), prepared.parameters()[0]
    return {name: base[name] if name.startswith(prefix) else tensor for name, tensor in own.items()}


def _weights(prepared: Prepared, recipe: Recipe, corners: Sequence[str], parts: Sequence[float]) -> list[float]:
    """λ for the buffers, which the base has no say in."""
    of_corner = dict(zip(corners, parts, strict=True))
    weights = [max(of_corner.get(name, 0.0), 0.0) for name in prepared.names]
    return weights if sum(weights) > 0 else list(recipe.weights)


def _as_models(parameters: Parameters, bodies: Mapping[str, Parameters]) -> dict[str, Tensor]:
    dtypes = next(iter(bodies.values()))
    return {name: tensor.to(dtypes[name].dtype) for name, tensor in parameters.items()}


def _steps(values: Float[numpy.ndarray, " n"], points: int) -> Float[numpy.ndarray, " p"]:
    low, high = float(values.min()), float(values.max())
    extent = MARGIN * (high - low)
    return numpy.linspace(low - extent, high + extent, points)


def _minus(one: Parameters, other: Parameters) -> dict[str, Tensor]:
    return {name: own - other[name] for name, own in one.items()}


def _dot(one: Parameters, other: Parameters) -> float:
    """⟨a, b⟩, summed in float64 one tensor at a time: what is held is as wide as the models are."""
    return math.fsum(
        float(torch.dot(_widest(own).reshape(-1), _widest(other[name]).reshape(-1))) for name, own in one.items()
    )


def _widest(tensor: Tensor) -> Tensor:
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double()
