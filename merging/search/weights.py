"""Weights on the simplex: the best ones on one split, for reporting on another."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy

from merging.metrics import accuracy
from merging.prepared import Prepared
from merging.recipe import Recipe

OnProgress = Callable[[float, str], None]
# Matena & Raffel: a grid of 51 points for two models, uniform Dirichlet draws for more.
GRID_POINTS = 51
DIRICHLET_POINTS = 50


@dataclass(frozen=True)
class SearchResult:
    """The best weights found, their mean accuracy on the split they were chosen on, and all that was tried."""

    weights: tuple[float, ...]
    value: float
    split: str
    tried: tuple[tuple[tuple[float, ...], float], ...]

    @property
    def summary(self) -> str:
        """One sentence: how good, on which split, among how many."""
        return f"Best of {len(self.tried)} weightings on {self.split}: {100 * self.value:.1f} % there on average."


def search_weights(
    prepared: Prepared,
    recipe: Recipe,
    *,
    split: str = "validation",
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> SearchResult:
    """The weights with the highest mean accuracy over the tasks on `split`, among the paper's candidates.

    Equal weights are always among the candidates, and win ties. Choose on `validation`, report on `test`.
    Source: Matena & Raffel 2022, section 4.
    """
    candidates = candidate_weights(len(recipe.models), seed=seed)
    on_split = replace(recipe, evaluation=replace(recipe.evaluation, split=split))
    tried = []
    for position, weights in enumerate(candidates):
        if on_progress:
            on_progress(position / len(candidates), f"{position} of {len(candidates)} weightings on {split}")
        chosen = on_split.with_weights(weights)
        predictions = prepared.predict_merged(prepared.merge(chosen), split, chosen.weights)
        tried.append((weights, float(numpy.mean([accuracy(one.correct).value for one in predictions.values()]))))
    best, value = max(tried, key=lambda entry: entry[1])
    return SearchResult(best, value, split, tuple(tried))


def candidate_weights(count: int, *, seed: int = 0) -> list[tuple[float, ...]]:
    """Equal weights, then a grid of 51 points for two models, or 50 draws from the uniform Dirichlet for more."""
    equal = (1.0 / count,) * count
    if count == 2:
        return [equal, *[(float(first), float(1 - first)) for first in numpy.linspace(0, 1, GRID_POINTS)]]
    draws = numpy.random.default_rng(seed).dirichlet(numpy.ones(count), DIRICHLET_POINTS)
    return [equal, *[tuple(float(weight) for weight in draw) for draw in draws]]
