"""What was tried of each recipe: process-wide and bounded, so that a search that was stopped or left goes on."""

import threading
from collections import OrderedDict
from dataclasses import replace

from merging.prepared import Prepared
from merging.recipe import COMPARISONS, Recipe
from merging.search import Trial, Trials, try_once

KEPT_RECIPES = 64


def search_key(recipe: Recipe) -> str:
    """Equal for recipes whose merges are the same at the same weights."""
    bare = replace(recipe, rule="fisher", compare=COMPARISONS, evaluation=replace(recipe.evaluation, split="test"))
    return repr(bare.with_weights([1.0] * len(recipe.models)))


class Tried:
    """Trials by recipe and split; the least recently used are dropped first."""

    def __init__(self, limit: int = KEPT_RECIPES) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str], Trials] = OrderedDict()

    def of(self, recipe: Recipe, split: str = "validation") -> Trials:
        """What was tried with this recipe's models and settings on a split, at any weights; new where nothing was."""
        with self._lock:
            trials = self._kept.setdefault((search_key(recipe), split), Trials())
            self._kept.move_to_end((search_key(recipe), split))
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)
            return trials


TRIED = Tried()


def reported(prepared: Prepared, recipe: Recipe, trial: Trial) -> Trial:
    """The same weights on `test`, evaluated once. Raises: MergingError."""
    return try_once(prepared, recipe, trial.rule, trial.weights, split="test", trials=TRIED.of(recipe, "test"))
