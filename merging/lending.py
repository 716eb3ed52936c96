"""A device that is lent for one call at a time, to a process of its own: what this process asks of whoever lends it."""

from collections.abc import Callable, Sequence
from typing import Protocol

from merging.checkpoints import Checkpoint
from merging.device_memory import DeviceMemory
from merging.errors import DeviceError
from merging.evaluation import Batches, Fixed
from merging.gradients import resolve_labels
from merging.recipe import Recipe
from merging.tasks import Task

OnProgress = Callable[[float, str], None]
# What an example is counted as where its own tokens are not known before it is read.
TOKENS = 128
# Operations per parameter and token: a multiply-add each on the way there, two more on the way back.
THERE, THERE_AND_BACK = 2, 6


class Lender(Protocol):
    """Sends work to a device that is lent.

    Both raise DeviceError where it is not to be had: the work is then done on the CPU, which is told.
    """

    device: str

    def fisher(self, recipe: Recipe, index: int, operations: float, on_progress: OnProgress) -> None:
        """Estimates the Fisher of a recipe's model into the cache, under the name of the lent device."""

    def fixed(self, recipe: Recipe, split: str, operations: float, on_progress: OnProgress) -> Fixed:
        """What no weight changes: the predictions of each single model and of the ensemble on a split."""


def fisher_operations(checkpoint: Checkpoint, task: Task, recipe: Recipe) -> float:
    """About how many operations the estimate of a Fisher takes: parameters x examples x tokens, for every label."""
    labels = resolve_labels(recipe.fisher.labels, len(checkpoint.label_names))
    passes = len(checkpoint.label_names) if labels == "exact" else 1
    examples = recipe.fisher.examples
    rows = len(task.rows("fisher")) if examples == "all" else int(examples)
    return float(THERE_AND_BACK * passes * checkpoint.parameter_count * rows * TOKENS)


def lent_fixed(
    lender: Lender | None,
    recipe: Recipe,
    checkpoints: Sequence[Checkpoint],
    batches: Sequence[Batches],
    split: str,
    pause: Callable[[], None] | None,
    memory: DeviceMemory,
) -> Fixed | None:
    """What no weight changes, from a device that is lent; None where none is, which `memory` tells if one was to be."""
    if lender is None:
        return None
    operations = evaluation_operations(checkpoints, sum(len(batch["labels"]) for own in batches for batch in own))
    try:
        return lender.fixed(recipe, split, operations, lambda fraction, text: pause and pause())
    except DeviceError as problem:
        memory.tell("evaluation", f"The single models were evaluated on the CPU. {problem}")
        return None


def evaluation_operations(checkpoints: Sequence[Checkpoint], rows: int) -> float:
    """About how many operations it takes to evaluate each model on that many rows."""
    return float(THERE * sum(checkpoint.parameter_count for checkpoint in checkpoints) * rows * TOKENS)
