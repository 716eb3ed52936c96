"""What a recipe names, opened as far as that takes no weights."""

from collections.abc import Callable
from typing import NamedTuple

from merging.checkpoints import Checkpoint, open_checkpoint
from merging.evaluation_tasks import EvaluationTask, evaluation_tasks
from merging.families import answers_in_words, fit_checkpoint
from merging.limits import Limits
from merging.preflight import preflight
from merging.recipe import Recipe
from merging.references import short_name, unique_names
from merging.tasks import Task, open_task

OnProgress = Callable[[float, str], None]


class Opened(NamedTuple):
    """A name, checkpoint and task for each model of a recipe, and the tasks that methods are compared on."""

    names: list[str]
    checkpoints: list[Checkpoint]
    own: list[Task]
    tasks: list[EvaluationTask]

    def contents(self, recipe: Recipe) -> tuple[object, ...]:
        """Equal where the same models answer the same rows, whatever is estimated of them; reads each checkpoint once."""
        rows = recipe.evaluation.examples
        drawn = (rows, recipe.fisher.seed) if rows != "all" else (rows,)
        models = [(one.reference, one.hash, one.answers) for one in self.checkpoints]
        tasks = [task.stamp() for task in (*self.own, *(entry.task for entry in self.tasks))]
        return recipe.heads, drawn, models, tasks


def open_recipe(recipe: Recipe, on_progress: OnProgress, limits: Limits | None = None) -> Opened:
    """Opens checkpoints and tasks and checks that they fit together. Raises: MergingError."""
    on_progress(0.0, "Opening the checkpoints")
    preflight(recipe, lambda fraction, text: on_progress(0.0, text), limits=limits).require()
    names = unique_names([short_name(model.checkpoint) for model in recipe.models])
    checkpoints = [
        open_checkpoint(model.checkpoint, name=name) for model, name in zip(recipe.models, names, strict=True)
    ]
    own = [open_task(model.task) for model in recipe.models]
    base = open_checkpoint(recipe.base, is_base=True) if recipe.base and answers_in_words(checkpoints[0]) else None
    checkpoints = [fit_checkpoint(one, task, base) for one, task in zip(checkpoints, own, strict=True)]
    tasks = evaluation_tasks(own, [open_task(task) for task in recipe.evaluation.tasks], checkpoints)
    return Opened(names, checkpoints, own, tasks)
