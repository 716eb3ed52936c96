"""The numbers behind the four uses: two models over every λ, and ever more models at equal λ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy
from jaxtyping import Bool

from merging.ensemble import average_probabilities
from merging.metrics import Score, accuracy
from merging.prepared import Prepared
from merging.recipe import Recipe

OnProgress = Callable[[float, str], None]
RULES = ("isotropic", "fisher")
GRID = 21  # λ = 0, .05, …, 1

# For each task, which of its N examples are right.
Answers = Mapping[str, Bool[numpy.ndarray, " N"]]


@dataclass(frozen=True, eq=False)
class ShareCurves:
    """Two models merged at every λ of the second one (`shares`), on some splits.

    `merges[rule, split]` has the answers for each of `shares`; `singles[split]` those of the two bodies by themselves,
    which are the curves' ends: each task is answered by the head that the merge would use; `ensemble[split]` those of the
    averaged outputs.
    """

    models: tuple[str, str]
    shares: tuple[float, ...]
    merges: Mapping[tuple[str, str], tuple[Answers, ...]]
    singles: Mapping[str, tuple[Answers, Answers]]
    ensemble: Mapping[str, Answers]

    def curve(self, rule: str, split: str, tasks: Sequence[str]) -> list[float]:
        """The mean accuracy over some tasks, for each of `shares`."""
        return [mean_of(answers, tasks) for answers in self.merges[rule, split]]

    def chosen(self, rule: str, tasks: Sequence[str], split: str = "validation") -> int:
        """The place in `shares` with the highest mean over some tasks on a split; of equal ones that nearest to ½."""
        curve = self.curve(rule, split, tasks)
        return max(range(len(curve)), key=lambda place: (round(curve[place], 9), -abs(self.shares[place] - 0.5)))

    def place(self, share: float) -> int:
        """The place in `shares` that is nearest to a λ of the second model."""
        return min(range(len(self.shares)), key=lambda place: abs(self.shares[place] - share))


def share_curves(
    prepared: Prepared,
    recipe: Recipe,
    *,
    points: int = GRID,
    splits: Sequence[str] = ("validation", "test"),
    on_progress: OnProgress | None = None,
) -> ShareCurves:
    """Merges two models by both rules at `points` values of λ, and scores each merge on every split."""
    report = on_progress or (lambda fraction, text: None)
    shares = tuple(float(share) for share in numpy.linspace(0, 1, points))
    merges: dict[tuple[str, str], list[Answers]] = {(rule, split): [] for rule in RULES for split in splits}
    for place, share in enumerate(shares):
        report(place / points, f"merging at {place + 1} of {points} values of λ")
        chosen = recipe.with_weights([1 - share, share])
        for rule in RULES:
            merged = prepared.merge(chosen, rule=rule)
            for split in splits:
                merges[rule, split].append(_answers(prepared.predict_merged(merged, split, chosen.weights)))
    ensemble = {split: _answers(prepared.fixed_predictions(split)[1]) for split in splits}
    return ShareCurves(
        models=(prepared.names[0], prepared.names[1]),
        shares=shares,
        merges={key: tuple(found) for key, found in merges.items()},
        singles={split: (merges["isotropic", split][0], merges["isotropic", split][-1]) for split in splits},
        ensemble=ensemble,
    )


@dataclass(frozen=True, eq=False)
class GrowingMerge:
    """The first 1, 2, … models of one task at equal λ: `answers[method][k − 1]` of k models, on one split.

    Methods are `isotropic`, `fisher` and `ensemble`; `singles` are the models by themselves, in their order.
    """

    models: tuple[str, ...]
    task: str
    split: str
    answers: Mapping[str, tuple[Bool[numpy.ndarray, " N"], ...]]
    singles: tuple[Bool[numpy.ndarray, " N"], ...]

    def scores(self, method: str) -> list[Score]:
        """Accuracy with its interval for 1, 2, … models."""
        return [accuracy(own) for own in self.answers[method]]


def growing_merge(
    prepared: Prepared, recipe: Recipe, *, split: str = "test", on_progress: OnProgress | None = None
) -> GrowingMerge:
    """Merges the first k models at equal λ by both rules, and averages their outputs, for k = 1 to all of them."""
    report = on_progress or (lambda fraction, text: None)
    count, task = len(prepared.modules), prepared.tasks[0].name
    predictions = prepared.fixed_predictions(split)[0]
    own = [predictions[name][task] for name in prepared.names]
    answers: dict[str, list[Bool[numpy.ndarray, " N"]]] = {method: [] for method in (*RULES, "ensemble")}
    for models in range(1, count + 1):
        report((models - 1) / count, f"merging the first {models} of {count} models")
        chosen = recipe.with_weights([1.0] * models + [0.0] * (count - models))
        for rule in RULES:
            found = prepared.predict_merged(prepared.merge(chosen, rule=rule), split, chosen.weights)
            answers[rule].append(found[task].correct)
        mean = average_probabilities([one.probabilities for one in own[:models]])
        answers["ensemble"].append(mean.argmax(1) == own[0].labels)
    return GrowingMerge(
        models=tuple(prepared.names),
        task=task,
        split=split,
        answers={method: tuple(found) for method, found in answers.items()},
        singles=tuple(one.correct for one in own),
    )


def mean_of(answers: Answers, tasks: Sequence[str]) -> float:
    """The mean accuracy over some tasks."""
    return float(numpy.mean([answers[task].mean() for task in tasks]))


def _answers(predictions: Mapping[str, object]) -> dict[str, Bool[numpy.ndarray, " N"]]:
    return {name: one.correct for name, one in predictions.items()}
