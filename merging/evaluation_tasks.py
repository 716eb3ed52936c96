"""The tasks that methods are compared on."""

from dataclasses import dataclass

from merging.alignment import can_align
from merging.checkpoints import Checkpoint
from merging.errors import RecipeError, quoted
from merging.references import unique_names
from merging.tasks import Task


@dataclass(frozen=True, eq=False)
class EvaluationTask:
    """A task that methods are compared on: `owners` are the models it is the own task of, `head` whose head it uses."""

    name: str
    task: Task
    head: int
    owners: tuple[int, ...]


def evaluation_tasks(own: list[Task], extra: list[Task], checkpoints: list[Checkpoint]) -> list[EvaluationTask]:
    """The models' own tasks, each once, then the extra ones, with unique names.

    Raises: RecipeError if no model's labels fit an extra task.
    """
    entries: dict[str, EvaluationTask] = {}
    for task in own:
        if task.reference not in entries:
            owners = tuple(index for index, other in enumerate(own) if other.reference == task.reference)
            entries[task.reference] = EvaluationTask(task.name, task, owners[0], owners)
    for task in extra:
        fitting = [
            index
            for index, checkpoint in enumerate(checkpoints)
            if task.labels is None or task.alignment or can_align(task.labels, checkpoint.label_names)
        ]
        if not fitting:
            raise RecipeError(
                f'Task "{task.name}" cannot be evaluated: expected a model with its labels {quoted(task.labels)}, '
                "got none in the recipe. Take it out of the evaluation's tasks."
            )
        entries.setdefault(task.reference, EvaluationTask(task.name, task, fitting[0], ()))
    names = unique_names([entry.name for entry in entries.values()])
    return [
        EvaluationTask(name, entry.task, entry.head, entry.owners)
        for name, entry in zip(names, entries.values(), strict=True)
    ]
