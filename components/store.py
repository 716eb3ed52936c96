"""Prepared recipes, one process-wide store bounded in bytes: visitors share them, sessions hold none."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from components.form import needs_download
from components.right_of_way import LIVE
from merging.families import answers_in_words
from merging.pipeline import Result, evaluate
from merging.prepared import Prepared
from merging.readers import account
from merging.recipe import COMPARISONS, EvaluationSettings, FisherSettings, Recipe
from merging.rules import RuleSettings

LIMIT_BYTES = 4 * 1024**3
# So many of the recipes used last keep what the next merge needs; of the others it is made anew, which takes no time.
MOST_AT_HAND = 8
# What the evaluation of a merge may take while its slider moves; what takes longer is looked at on fewer rows first.
PREVIEW_S = 0.06
# A sample with more of the rows than this saves less than what the second picture costs.
LARGEST_SAMPLE = 2 / 3
FEWEST_ROWS = 32


# What rules take of an estimate, by one that takes as much: nothing, Fishers, Fishers with Kronecker factors.
LEVELS = ("isotropic", "fisher", "kfac")


def preparation_key(recipe: Recipe, level: str | None = None) -> str:
    """Equal for recipes that need the same models and Fishers: without weights and all that is applied live, the base in it.

    Of rules it only counts how much of an estimate they take; `level` asks for another one of `LEVELS`. What is read of
    the Hub in the name of an account is that account's alone.
    """
    live = FisherSettings()
    fisher = replace(recipe.fisher, floor=live.floor, normalise=live.normalise, zero_rule=live.zero_rule)
    evaluation = EvaluationSettings(examples=recipe.evaluation.examples, tasks=recipe.evaluation.tasks)
    rule = level or LEVELS[_level(recipe)]
    plain = {"settings": RuleSettings(), "layer_weights": {}, "compare": COMPARISONS, "base": None}
    bare = replace(recipe, fisher=fisher, evaluation=evaluation, rule=rule, **plain)
    owner = account()
    owner = owner if owner and needs_download(recipe) else ""  # on one's own machine no folder is looked at
    return f"{owner} {bare.with_weights([1.0] * len(recipe.models))!r}"


class Store:
    """The least recently used recipes are dropped first; at least one is kept, whatever its size."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, Prepared] = OrderedDict()
        self._results: dict[str, Result | None] = {}

    def get(self, recipe: Recipe) -> Prepared | None:
        """What is prepared for this recipe, or for one that takes more of an estimate; or None."""
        with self._lock:
            key = self._key(recipe)
            if key is not None:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, recipe: Recipe, prepared: Prepared, result: Result | None = None) -> None:
        """Keeps it, with a result of it where there is one, dropping the least recently used over the limit."""
        key = preparation_key(recipe)
        with self._lock:
            self._kept[key] = prepared
            self._results[key] = result
            self._kept.move_to_end(key)
            self._drop()

    def all(self) -> list[Prepared]:
        """What is prepared, the most recently used last."""
        with self._lock:
            return list(self._kept.values())

    def _drop(self) -> None:
        while len(self._kept) > 1 and _size_bytes(self._kept.values()) > self._limit_bytes:
            dropped, _ = self._kept.popitem(last=False)
            del self._results[dropped]
        kept = list(self._kept.values())
        busy = {id(prepared.modules) for prepared in kept[-MOST_AT_HAND:]}
        for prepared in kept[:-MOST_AT_HAND]:
            prepared.rest(with_models=id(prepared.modules) not in busy)

    def live_result(
        self, recipe: Recipe, *, between: Callable[[], None] | None = None, moving: bool = False
    ) -> Result | None:
        """The merge at the recipe's weights and settings, from what is prepared; None where nothing is.

        The last result of each is kept: chart, export and the visit's history show the same one. With `between`, which
        is called between batches and may raise Cancelled, it is no live work: others go first.
        """
        with self._lock:
            key = self._key(recipe)
            prepared, last = self._kept.get(key), self._results.get(key)
            if prepared is not None:
                self._kept.move_to_end(key)
        if prepared is None or (last is not None and last.recipe == recipe):
            return last
        with nullcontext() if between else LIVE.taken(moving=moving):
            result = evaluate(prepared, recipe, between=between)
        with self._lock:
            if self._kept.get(key) is prepared:
                self._results[key] = result
            self._drop()  # a merge keeps what it has made of the layers
        return result

    def preview(self, recipe: Recipe) -> Result | None:
        """The same, on a sample of each task's rows where all of them took longer than a hand on a slider waits.

        A sample's result says so in its recipe's `evaluation.examples`, and is not kept.
        """
        with self._lock:
            key = self._key(recipe)
            prepared, last = self._kept.get(key), self._results.get(key)
        rows = None if prepared is None or last is None or last.recipe == recipe else _rows_in_time(last)
        if rows is None:
            return self.live_result(recipe, moving=last is not None)  # the first one takes longer than a move
        # What single models and the ensemble answer is known of all rows, but for a split that nobody has looked at yet.
        with LIVE.taken(moving=prepared.fixed.has(recipe.evaluation.split)):
            return evaluate(
                prepared.sampled(rows), replace(recipe, evaluation=replace(recipe.evaluation, examples=rows))
            )

    def _key(self, recipe: Recipe) -> str | None:
        """Where what serves this recipe is kept: its own key, else that of a larger estimate; None where nothing does."""
        keys = [preparation_key(recipe, level) for level in LEVELS[_level(recipe) :]]
        return next((key for key in keys if key in self._kept and _has_heads_of(self._kept[key], recipe)), None)

    def folders(self) -> set[Path]:
        """Where the checkpoints of what is prepared lie."""
        with self._lock:
            checkpoints = [one for prepared in self._kept.values() for one in prepared.checkpoints]
        return {one.folder for one in [*checkpoints, *(own.base for own in checkpoints if own.base)]}


STORE = Store()


def _size_bytes(several: Collection[Prepared]) -> int:
    """What they take together; models that several have count once."""
    own = {id(prepared.modules): prepared for prepared in several}
    return sum(one.size_bytes(with_models=own[id(one.modules)] is one) for one in several)


def _has_heads_of(prepared: Prepared, recipe: Recipe) -> bool:
    """Heads that are made of words are the base's."""
    return prepared.recipe.base == recipe.base or not answers_in_words(prepared.checkpoints[0])


def _level(recipe: Recipe) -> int:
    return recipe.needs_fishers + recipe.needs_factors


def live_result(recipe: Recipe) -> Result | None:
    """The store's result for this recipe; None where its Fishers are not there."""
    return STORE.live_result(recipe)


def _rows_in_time(last: Result) -> int | None:
    """How many rows of each task are evaluated in time, by what all of them took; None where that is most of them.

    Few different sizes: 32 rows, 64, 128, and so on.
    """
    taken_s = last.timings["evaluate"]
    rows = [score.n for score in last.scores[last.recipe.rule].values()]
    fitting = int(max(rows) * PREVIEW_S / max(taken_s, 1e-9))
    if fitting >= LARGEST_SAMPLE * max(rows):
        return None
    return FEWEST_ROWS * 2 ** int(math.log2(max(1.0, fitting / FEWEST_ROWS)))
