"""The whole job: open, estimate, merge, evaluate. The only module that knows all the steps."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from merging import cache
from merging.checkpoints import Checkpoint, open_checkpoint
from merging.devices import resolve_device
from merging.errors import FisherError, RecipeError
from merging.evaluation import Prediction
from merging.fisher import Fisher, diagonal_fisher
from merging.gradients import resolve_labels
from merging.merge import check_base, check_fisher
from merging.metrics import PairedTest, Score, accuracy, mean_accuracy, paired_test
from merging.parameters import check_same_structure
from merging.prepared import Prepared, evaluation_tasks, unique_names
from merging.recipe import Recipe
from merging.references import short_name
from merging.rules import RULES
from merging.tasks import Task, open_task

OnProgress = Callable[[float, str], None]
# At most: the estimate cuts it to what fits into memory.
FISHER_BATCH = 256


@dataclass(frozen=True, eq=False)
class Result:
    """What a merge gave.

    `scores` by method (the recipe's rule, `isotropic`, `ensemble`, `experts`) and task; `singles` by model and
    task, for every task that the model's own head can do; `merged` the merged parameters by name; `timings` in
    seconds by phase.
    """

    recipe: Recipe
    prepared: Prepared
    scores: dict[str, dict[str, Score]]
    singles: dict[str, dict[str, Score]]
    merged: dict[str, Tensor]
    predictions: dict[str, dict[str, Prediction]]
    timings: dict[str, float] = field(default_factory=dict)

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


def prepare(recipe: Recipe, on_progress: OnProgress | None = None) -> Prepared:
    """Opens the recipe's models and estimates the Fishers that are not cached yet.

    Raises: MergingError, before any estimation where the fault can be seen by then.
    """
    report = on_progress or (lambda fraction, text: None)
    timings: dict[str, float] = {}
    device = resolve_device(recipe.device)
    with _timed(timings, "open"):
        report(0.0, "Opening the checkpoints")
        names = unique_names([short_name(model.checkpoint) for model in recipe.models])
        checkpoints = [
            open_checkpoint(model.checkpoint, name=name) for model, name in zip(recipe.models, names, strict=True)
        ]
        _check_compatible(checkpoints, recipe)
        own = [open_task(model.task) for model in recipe.models]
        tasks = evaluation_tasks(own, [open_task(task) for task in recipe.evaluation.tasks], checkpoints)
        modules = [checkpoint.model(device) for checkpoint in checkpoints]
    prepared = Prepared(recipe, names, checkpoints, modules, [], tasks, device, timings)
    if recipe.heads == "merge" and not prepared.equal_labels:
        raise RecipeError(
            "The heads cannot be merged: expected models with equal label sets, got "
            f"{sorted({checkpoint.label_names for checkpoint in checkpoints})}. Choose heads: keep."
        )
    parameters = prepared.parameters()
    check_same_structure(parameters, names)
    if RULES[recipe.rule].needs_fisher and recipe.fisher.zero_rule == "base":
        check_base(parameters[0], prepared.base(recipe))
    for entry in tasks:
        entry.task.rows(recipe.evaluation.split)
    with _timed(timings, "fisher"):
        if RULES[recipe.rule].needs_fisher:
            prepared.fishers.extend(estimate_fishers(prepared, own, report))
    return prepared


def estimate_fishers(prepared: Prepared, tasks: list[Task], on_progress: OnProgress) -> list[Fisher]:
    """Each model's Fisher on its own task's `fisher` split: from the cache, else estimated and cached at once.

    Raises: TaskError, FisherError, CacheError (before the estimation if the cache cannot be written).
    """
    fishers = []
    count = len(tasks)
    for index, (checkpoint, task) in enumerate(zip(prepared.checkpoints, tasks, strict=True)):

        def report(fraction: float, text: str, index: int = index) -> None:
            on_progress(
                (index + fraction) / count, f"Fisher of {prepared.names[index]} ({index + 1} of {count}): {text}"
            )

        report(0.0, "reading")
        fishers.append(_fisher_of(prepared, index, checkpoint, task, report).to(prepared.device))
    return fishers


def evaluate(prepared: Prepared, recipe: Recipe) -> Result:
    """Merges with the recipe's weights and rule, and scores it beside the methods that it is compared with."""
    timings = dict(prepared.timings)
    split = recipe.evaluation.split
    with _timed(timings, "merge"):
        merged = {recipe.rule: prepared.merge(recipe)}
        if "isotropic" in recipe.compare and recipe.rule != "isotropic":
            merged["isotropic"] = prepared.merge(recipe, rule="isotropic")
    with _timed(timings, "evaluate"):
        predictions = {
            method: prepared.predict_merged(parameters, split, recipe.weights) for method, parameters in merged.items()
        }
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
    return Result(recipe, prepared, scores, single_scores, merged[recipe.rule], predictions, timings)


def _expert_scores(prepared: Prepared, singles: dict[str, dict[str, Prediction]]) -> dict[str, Score]:
    """On each task the mean of the models whose own task it is; on an extra task, of all that can do it."""
    scores = {}
    for entry in prepared.tasks:
        owners = [prepared.names[index] for index in entry.owners] or [
            name for name, own in singles.items() if entry.name in own
        ]
        scores[entry.name] = mean_accuracy([singles[name][entry.name].correct for name in owners])
    return scores


def _fisher_of(prepared: Prepared, index: int, checkpoint: Checkpoint, task: Task, report: OnProgress) -> Fisher:
    settings = prepared.recipe.fisher
    examples = None if settings.examples == "all" else int(settings.examples)
    content = task.content_hash("fisher") if task.has("fisher") else ""
    # One name for one estimate, whether its labels were chosen or found by `auto`.
    labels = resolve_labels(settings.labels, len(checkpoint.label_names))
    estimator = (labels, settings.seed, prepared.device)
    key = cache.FisherKey(checkpoint.hash, content, "fisher", examples, *estimator)
    fisher = cache.read_fisher(key, Fisher.load)
    parameters = dict(prepared.modules[index].named_parameters())
    if fisher is None:
        cache.require_writable()
        batches = task.batches(
            "fisher", checkpoint, batch_size=FISHER_BATCH, examples=examples, seed=settings.seed, by_length=True
        )
        state = cache.state_path(key)
        fisher = diagonal_fisher(
            prepared.modules[index], batches, labels, seed=settings.seed, on_progress=report, state=state
        )
        check_fisher(parameters, fisher, f'The Fisher of "{checkpoint.name}"')
        cache.write_atomically(cache.entry_path(key), fisher.save)
        state.unlink(missing_ok=True)
        return fisher
    try:
        check_fisher(parameters, fisher, f'The cached Fisher of "{checkpoint.name}"')
    except FisherError as problem:
        raise FisherError(f'{problem} Delete "{cache.entry_path(key)}"; it is then estimated again.') from problem
    return fisher


def _check_compatible(checkpoints: list[Checkpoint], recipe: Recipe) -> None:
    """Raises: RecipeError if the architectures differ, seen before any weights are read."""
    first = checkpoints[0]
    for entry, checkpoint in zip(recipe.models, checkpoints, strict=True):
        if checkpoint.architecture != first.architecture:
            raise RecipeError(
                f'"{entry.checkpoint}" cannot be merged with "{first.reference}": expected the same architecture '
                f"({first.architecture}), got {checkpoint.architecture}. Pick checkpoints fine-tuned from one base."
            )


@contextmanager
def _timed(timings: dict[str, float], phase: str) -> Iterator[None]:
    started = time.perf_counter()
    try:
        yield
    finally:
        timings[phase] = timings.get(phase, 0.0) + time.perf_counter() - started
