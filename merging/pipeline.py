"""The whole job: open, estimate, merge, evaluate. The only module that knows all the steps."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

from torch import Tensor

from merging.device_memory import DeviceMemory
from merging.devices import fitting_threads, resolve_device
from merging.drift import drift, drift_notes, may_run_away
from merging.estimates import fisher_of, is_cached, lent_fisher
from merging.evaluation import Prediction
from merging.families import open_models
from merging.fisher import Fisher
from merging.lending import Lender
from merging.limits import Limits
from merging.metrics import PairedTest, Score, accuracy, mean_accuracy, paired_test
from merging.opened import open_recipe
from merging.parameters import check_same_structure
from merging.preflight import unequal_heads
from merging.prepared import Prepared
from merging.recipe import Recipe
from merging.tasks import Task
from merging.weights import check_base

OnProgress = Callable[[float, str], None]


@dataclass(frozen=True, eq=False)
class Result:
    """What a merge gave.

    `scores` by method (the recipe's rule, `isotropic`, `ensemble`, `experts`) and task; `singles` by model and
    task, for every task that the model's own head can do; `merged` the merged parameters by name; `timings` in
    seconds by phase, `merge_seconds` of the first merge by each rule (later ones find its layers factored); `drifts` how far rules that may run away have gone, see `merging.drift`.
    """

    recipe: Recipe
    prepared: Prepared
    scores: dict[str, dict[str, Score]]
    singles: dict[str, dict[str, Score]]
    merged: dict[str, Tensor]
    predictions: dict[str, dict[str, Prediction]]
    timings: dict[str, float] = field(default_factory=dict)
    merge_seconds: dict[str, float] = field(default_factory=dict)
    drifts: dict[str, float] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What a merge did beside the rule, and what to beware of, in sentences."""
        return [*self.prepared.notes, *drift_notes(self.drifts)]

    def mean(self, method: str) -> float:
        """The mean accuracy of a method over the tasks."""
        scores = self.scores[method].values()
        return sum(score.value for score in scores) / len(scores)

    def compare(self, first: str, second: str, task: str) -> PairedTest:
        """McNemar's exact test between two methods with predictions of their own (not `experts`) on one task."""
        return paired_test(self.predictions[first][task].correct, self.predictions[second][task].correct)


def run(recipe: Recipe | Mapping[str, object] | str | Path, on_progress: OnProgress | None = None) -> Result:
    """Carries out a recipe (or its fields, or its file): opens its models, estimates what is not cached, merges, evaluates.

    `on_progress(fraction, text)` may raise `Cancelled`; Fishers that are finished by then stay cached.

    Raises: MergingError.
    """
    recipe = Recipe.of(recipe)
    return evaluate(prepare(recipe, on_progress), recipe)


def prepare(
    recipe: Recipe,
    on_progress: OnProgress | None = None,
    *,
    limits: Limits | None = None,
    lender: Lender | None = None,
    others: Callable[[], Iterable[Prepared]] = tuple,
) -> Prepared:
    """Opens the recipe's models and estimates the Fishers that are not cached yet; with a `lender`, on what it lends.

    Where one of the `others()` has the same models and rows, they are not opened once more, nor their predictions made.

    Raises: MergingError, before any estimation where the fault can be seen by then; what is over `limits` before anything
    is downloaded.
    """
    report = on_progress or (lambda fraction, text: None)
    memory = DeviceMemory(resolve_device(recipe.device))
    lender = lender if recipe.device == "auto" else None
    given = (recipe, report, memory, limits, lender, others)
    return memory.or_on_cpu(lambda device: _prepare_on(device, *given), "all work")


def _prepare_on(
    device: str,
    recipe: Recipe,
    report: OnProgress,
    memory: DeviceMemory,
    limits: Limits | None,
    lender: Lender | None,
    others: Callable[[], Iterable[Prepared]],
) -> Prepared:
    timings: dict[str, float] = {}
    memory.device = device
    with timed(timings, "open"):
        opened = open_recipe(recipe, report, limits)
        names, checkpoints, own, tasks = opened
        contents = opened.contents(recipe) if recipe.needs_fishers else None  # whose cache wants the hashes, too
        found = next((one for one in others() if contents and (one.contents, one.device) == (contents, device)), None)
        modules = None if found else open_models(checkpoints, own, device)
    if found:
        prepared = found.again(recipe, timings, memory, lender)
    else:
        prepared = Prepared(recipe, names, checkpoints, modules, [], tasks, device, timings, memory, lender, contents)
    if recipe.heads == "merge" and not prepared.equal_labels:
        raise unequal_heads([checkpoint.label_names for checkpoint in checkpoints])
    parameters = prepared.parameters()
    check_same_structure(parameters, names)
    if recipe.needs_base:
        check_base(parameters[0], prepared.base(recipe), rule=recipe.rule, scale=recipe.settings.scale)
    # Rows and labels that do not fit show now, not after the estimates.
    for entry in tasks:
        entry.task.align(recipe.evaluation.split, checkpoints[entry.head])
    for checkpoint, task in zip(checkpoints, own, strict=True) if recipe.needs_fishers else ():
        task.align("fisher", checkpoint)
    with timed(timings, "fisher"):
        if recipe.needs_fishers:
            prepared.fishers.extend(estimate_fishers(prepared, own, report, in_use=found is not None))
    return prepared


def estimate_fishers(
    prepared: Prepared, tasks: list[Task], on_progress: OnProgress, *, in_use: bool = False
) -> list[Fisher]:
    """Each model's Fisher on its own task's `fisher` split: from the cache, else estimated and cached at once.

    Models that are `in_use` stay as they are meanwhile: an estimate opens its own.

    Raises: TaskError, FisherError, CacheError (before the estimation if the cache cannot be written).
    """
    fishers = []
    count = len(tasks)
    anew = cache(lambda: open_models(prepared.checkpoints, tasks, prepared.device))
    for index, (checkpoint, task) in enumerate(zip(prepared.checkpoints, tasks, strict=True)):

        def report(fraction: float, text: str, index: int = index) -> None:
            on_progress(
                (index + fraction) / count, f"Fisher of {prepared.names[index]} ({index + 1} of {count}): {text}"
            )

        report(0.0, "reading")
        module, told = prepared.modules[index], {"on_progress": report, "memory": prepared.memory}
        fisher = lent_fisher(prepared.lender, prepared.recipe, index, checkpoint, task, module, **told)
        if fisher is None:
            settings = {"settings": prepared.recipe.fisher, "device": prepared.device}
            settings["factors"] = prepared.recipe.needs_factors
            module = anew()[index] if in_use and not is_cached(checkpoint, task, **settings) else module
            fisher = fisher_of(checkpoint, task, module, **settings, **told)
        fishers.append(fisher.to(prepared.device))
    return fishers


def evaluate(prepared: Prepared, recipe: Recipe, *, between: Callable[[], None] | None = None) -> Result:
    """Merges with the recipe's weights and rule, and scores it beside the methods that it is compared with.

    `between` batches something may be called, which may raise Cancelled.
    """
    timings = dict(prepared.timings)
    split = recipe.evaluation.split
    with timed(timings, "merge"):
        merged, seconds = {}, {}
        for rule in recipe.rules:
            with timed(seconds, rule):
                merged[rule] = prepared.merge(recipe, rule=rule)
        firsts = {rule: prepared.kept(f"seconds {rule}", partial(seconds.get, rule)) for rule in seconds}
        drifts = {rule: drift(own, prepared.parameters()) for rule, own in merged.items() if may_run_away(rule, recipe)}
    with timed(timings, "evaluate"):
        predictions = _predict_methods(prepared, merged, recipe, between)
    with timed(timings, "compare"):
        singles, ensemble = prepared.fixed_predictions(split)
        if "ensemble" in recipe.compare:
            predictions["ensemble"] = ensemble
        scores = {
            method: {task: accuracy(prediction.correct) for task, prediction in own.items()}
            for method, own in predictions.items()
        }
        if "experts" in recipe.compare:
            scores["experts"] = _expert_scores(prepared, singles)
    single_scores = {
        name: {task: accuracy(prediction.correct) for task, prediction in own.items()} for name, own in singles.items()
    }
    own = merged[recipe.rule]
    return Result(recipe, prepared, scores, single_scores, own, predictions, timings, firsts, drifts)


def _predict_methods(
    prepared: Prepared,
    merged: Mapping[str, Mapping[str, Tensor]],
    recipe: Recipe,
    between: Callable[[], None] | None,
) -> dict[str, dict[str, Prediction]]:
    """What each method's merge predicts; small models, which leave a core free, side by side."""

    def of(parameters: Mapping[str, Tensor]) -> dict[str, Prediction]:
        return prepared.predict_merged(parameters, recipe.evaluation.split, recipe.weights, between=between)

    if prepared.at_once == 1:
        return {method: of(parameters) for method, parameters in merged.items()}
    with fitting_threads(prepared.modules[0]), ThreadPoolExecutor(prepared.at_once) as threads:
        return dict(zip(merged, threads.map(of, merged.values()), strict=True))


def _expert_scores(prepared: Prepared, singles: dict[str, dict[str, Prediction]]) -> dict[str, Score]:
    """On each task the mean of the models whose own task it is; on an extra task, of all that can do it."""
    scores = {}
    for entry in prepared.tasks:
        owners = [prepared.names[index] for index in entry.owners] or [
            name for name, own in singles.items() if entry.name in own
        ]
        scores[entry.name] = mean_accuracy([singles[name][entry.name].correct for name in owners])
    return scores


@contextmanager
def timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    """Adds the seconds that its block takes to a phase."""
    started = time.perf_counter()
    try:
        yield
    finally:
        timings[phase] = timings.get(phase, 0.0) + time.perf_counter() - started
