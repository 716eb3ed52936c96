"""What weightings give: one trial each, kept so that nothing is tried twice."""

import copy
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy

from merging.errors import require_choice
from merging.evaluation import Prediction, predict
from merging.forward_passes import inputs_identity
from merging.metrics import Score, accuracy, score_of
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.search.points import Weights

# Beside the tasks' own names, after "task:".
OBJECTIVES = ("mean", "worst")
TASK = "task:"
KEPT_TRIALS = 5000
Groups = Sequence[Sequence[str]]


@dataclass(frozen=True, eq=False)
class Trial:
    """What one weighting gives with one rule: the score of every task and of their mean."""

    rule: str
    weights: Weights
    scores: Mapping[str, Score]
    mean: Score

    @property
    def worst_task(self) -> str:
        """The task with the lowest accuracy."""
        return min(self.scores, key=lambda task: self.scores[task].value)

    def score(self, objective: str) -> Score:
        """The score of an objective: `mean`, `worst` (task), or `task:NAME`. Raises: RecipeError."""
        if objective == "mean":
            return self.mean
        if objective == "worst":
            return self.scores[self.worst_task]
        return self.scores[require_choice("objective", objective, objectives_of(self.scores)).removeprefix(TASK)]


def objectives_of(tasks: Iterable[str]) -> list[str]:
    """What can be searched for: the mean over the tasks, the worst of them, or one."""
    return [*OBJECTIVES, *[f"{TASK}{task}" for task in tasks]]


def best_of(trials: Sequence[Trial], objective: str) -> Trial | None:
    """The trial with the highest objective; among equals the one with the highest mean, then the first. None of none."""
    return max(trials, key=lambda trial: (trial.score(objective).value, trial.mean.value), default=None)


class Trials:
    """Everything tried with one recipe's models and settings on one split; safe to use from several threads."""

    def __init__(self, limit: int = KEPT_TRIALS) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, Weights], Trial | str] = OrderedDict()

    def get(self, rule: str, weights: Weights) -> Trial | str | None:
        """What the weighting gave: a trial, or why it could not be evaluated; None if it was not tried."""
        with self._lock:
            return self._kept.get((rule, _key(weights)))

    def put(self, rule: str, weights: Weights, outcome: Trial | str) -> None:
        """Keeps a trial, or why there is none; over the limit the oldest is dropped."""
        with self._lock:
            self._kept[rule, _key(weights)] = outcome
            while len(self._kept) > self._limit:
                self._kept.popitem(last=False)

    def of(self, rule: str) -> list[Trial]:
        """The trials of a rule, in the order in which they were made."""
        with self._lock:
            return [kept for (own, _), kept in self._kept.items() if own == rule and isinstance(kept, Trial)]

    def __len__(self) -> int:
        with self._lock:
            return len(self._kept)


class Bench:
    """Tries weightings on a module of its own, so that a merge that somebody looks at never waits for its lock."""

    def __init__(self, prepared: Prepared, recipe: Recipe, split: str) -> None:
        self._prepared, self._recipe, self._split = prepared, recipe, split
        self._target = copy.deepcopy(prepared.modules[0])
        self._groups = shared_rows(prepared, split)

    def trial(self, rule: str, weights: Weights, pause: Callable[[], None] = lambda: None) -> Trial:
        """What a weighting gives; `pause` is called between batches and may raise Cancelled. Raises: MergingError."""
        prepared, chosen = self._prepared, self._recipe.with_weights(weights)
        merged = prepared.merge(chosen, rule=rule, on_progress=lambda fraction, text: pause())
        models = prepared.merged_models(self._target, merged, chosen.weights)
        predictions = predict(models, prepared.batches(self._split), between=pause, memory=prepared.memory)
        names = [entry.name for entry in prepared.tasks]
        return trial_of(rule, weights, dict(zip(names, predictions, strict=True)), self._groups)


def try_once(prepared: Prepared, recipe: Recipe, rule: str, weights: Weights, *, split: str, trials: Trials) -> Trial:
    """What a weighting gives on a split, from `trials` where it is kept there. Raises: MergingError."""
    outcome = trials.get(rule, weights)
    if not isinstance(outcome, Trial):
        outcome = Bench(prepared, recipe, split).trial(rule, weights)
        trials.put(rule, weights, outcome)
    return outcome


def constant_trials(prepared: Prepared, split: str) -> tuple[Trial, list[Trial]]:
    """What no weight changes: the output ensemble, and each single model on the tasks that its own head can do."""
    singles, ensemble = prepared.fixed_predictions(split)
    groups, count = shared_rows(prepared, split), len(prepared.names)
    corners = [tuple(float(model == own) for model in range(count)) for own in range(count)]
    own = [
        trial_of("single", corner, singles[name], groups) for name, corner in zip(prepared.names, corners, strict=True)
    ]
    return trial_of("ensemble", (1 / count,) * count, ensemble, groups), own


def trial_of(rule: str, weights: Weights, predictions: Mapping[str, Prediction], groups: Groups) -> Trial:
    """The scores of predictions; `groups` are the tasks that share their rows."""
    correct = {task: prediction.correct for task, prediction in predictions.items()}
    scores = {task: accuracy(own) for task, own in correct.items()}
    own_groups = [[correct[task] for task in group if task in correct] for group in groups]
    return Trial(rule, weights, scores, mean_over_tasks([group for group in own_groups if group]))


def mean_over_tasks(groups: Sequence[Sequence[numpy.ndarray]]) -> Score:
    """The mean accuracy over tasks, with a 95 % Wilson interval at its effective number of examples.

    `groups` are tasks on the same examples, one array of correct answers each. The variance of the mean over T tasks
    is Σ_g Var(Σ_{t∈g} c_t) / n_g / T²: examples that tasks share are not counted more than once. The effective number is
    p (1 − p) over that variance, which for one task is its number of examples, and for equal tasks on different
    examples their sum; it is never more than that.
    Source: Wilson 1927 at the effective sample size, as Dean & Pagano 2015 do for clusters.
    """
    tasks = [own for group in groups for own in group]
    if not tasks:
        return Score("accuracy", math.nan, math.nan, math.nan, 0)
    value = float(numpy.mean([own.mean() for own in tasks]))
    variance = sum(float(numpy.sum(group, axis=0).var()) / len(group[0]) for group in groups) / len(tasks) ** 2
    most = sum(len(own) for own in tasks)
    if 0 < value < 1:
        count = min(most, value * (1 - value) / variance) if variance > 0 else most
    else:
        # All right or all wrong: nothing is known of how the tasks go together.
        count = min(len(own) for own in tasks)
    count = max(1, math.floor(count + 1e-6))
    correct = value * count
    score = score_of(round(correct) if abs(correct - round(correct)) < 1e-6 else correct, count)
    return Score("accuracy", value, score.low, score.high, count)


def shared_rows(prepared: Prepared, split: str) -> list[list[str]]:
    """The tasks by name, in groups that are evaluated on the same rows."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for entry, own in zip(prepared.tasks, prepared.batches(split), strict=True):
        groups.setdefault(inputs_identity(own), []).append(entry.name)
    return list(groups.values())


def _key(weights: Weights) -> Weights:
    return tuple(round(float(weight), 6) for weight in weights)
