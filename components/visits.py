"""The merges of each visit, kept on the server under the visit's id: the tabs of one visitor see the same ones."""

import threading
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy

from components.pages import is_visit
from merging.metrics import Score
from merging.pipeline import Result
from merging.recipe import Recipe

KEPT_VISITS = 200
KEPT_MERGES = 50
LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class Merge:
    """One merge: its name and recipe, the means of each method, and by task the Fisher merge's score and right answers.

    Tasks go by their reference and split, so that two merges are compared only on the same examples.
    """

    name: str
    recipe: Recipe
    means: Mapping[str, float]
    titles: Mapping[tuple[str, str], str]
    scores: Mapping[tuple[str, str], Score]
    correct: Mapping[tuple[str, str], numpy.ndarray]


class Visits:
    """Bounded: the visits seen longest ago are forgotten first, and of one visit its oldest merges."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._merges: OrderedDict[str, list[Merge]] = OrderedDict()

    def add(self, visit: str | None, result: Result, name: str = "") -> str:
        """Keeps a result; returns the visit's id, a new one where `visit` is not known."""
        with self._lock:
            known = isinstance(visit, str) and (visit in self._merges or is_visit(visit))
            visit = visit if known else uuid.uuid4().hex
            merges = self._merges.setdefault(visit, [])
            number = 1 + max([int(merge.name.split(" ")[1]) for merge in merges if _is_numbered(merge.name)], default=0)
            merges.append(_merge_of(result, _free(name.strip()[:LONGEST_NAME], merges) or f"merge {number}"))
            del merges[:-KEPT_MERGES]
            self._merges.move_to_end(visit)
            while len(self._merges) > KEPT_VISITS:
                self._merges.popitem(last=False)
            return visit

    def of(self, visit: str | None) -> list[Merge]:
        """The merges of a visit, the newest last; none where it is not known."""
        with self._lock:
            return list(self._merges.get(visit, [])) if isinstance(visit, str) else []

    def named(self, visit: str | None, name: str | None) -> Merge | None:
        """One merge of a visit."""
        return next((merge for merge in self.of(visit) if merge.name == name), None)


VISITS = Visits()


def _is_numbered(name: str) -> bool:
    word, _, number = name.partition(" ")
    return word == "merge" and number.isascii() and number.isdigit() and len(number) < 6


def _free(name: str, merges: list[Merge]) -> str:
    """The name, with a number behind it where another merge has it."""
    taken, number, free = {merge.name for merge in merges}, 2, name
    while free in taken:
        free, number = f"{name} ({number})", number + 1
    return free


def _merge_of(result: Result, name: str) -> Merge:
    method, split = result.recipe.rule, result.recipe.evaluation.split
    keys = {entry.name: (entry.task.reference, split) for entry in result.prepared.tasks}
    return Merge(
        name,
        result.recipe,
        {other: result.mean(other) for other in result.scores},
        {keys[task]: task for task in result.scores[method]},
        {keys[task]: score for task, score in result.scores[method].items()},
        {keys[task]: result.predictions[method][task].correct for task in result.scores[method]},
    )
