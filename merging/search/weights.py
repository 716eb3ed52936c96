"""Weights on the simplex: the best ones on one split, for reporting on another."""

from collections.abc import Callable
from dataclasses import dataclass

from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.search.points import draws, map_points
from merging.search.trials import Bench

OnProgress = Callable[[float, str], None]
# Matena & Raffel: uniform Dirichlet draws for more than two models.
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
    `on_progress` is called between batches and may raise Cancelled.
    Source: Matena & Raffel 2022, section 4.
    """
    candidates, bench = candidate_weights(len(recipe.models), seed=seed), Bench(prepared, recipe, split)
    report, tried = on_progress or (lambda fraction, text: None), []

    def pause() -> None:
        report(len(tried) / len(candidates), f"{len(tried)} of {len(candidates)} weightings on {split}")

    for weights in candidates:
        pause()
        tried.append((weights, bench.trial(recipe.rule, weights, pause).mean.value))
    best, value = max(tried, key=lambda entry: entry[1])
    return SearchResult(best, value, split, tuple(tried))


def candidate_weights(count: int, *, seed: int = 0) -> list[tuple[float, ...]]:
    """Equal weights, then a grid of 51 points for two models, or 50 draws from the uniform Dirichlet for more."""
    return [(1.0 / count,) * count, *(map_points(2) if count == 2 else draws(count, DIRICHLET_POINTS, seed=seed))]
