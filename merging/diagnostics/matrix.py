"""Every model on every task: single models, base, merges and ensemble."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from merging.diagnostics.distances import base_of
from merging.diagnostics.planes import base_with_head
from merging.errors import MergingError
from merging.evaluation import Prediction
from merging.metrics import Score, accuracy
from merging.prepared import Prepared
from merging.recipe import Recipe

OnProgress = Callable[[float, str], None]
METHODS = ("isotropic", "fisher", "ensemble")


@dataclass(frozen=True)
class MatrixCell:
    """A score; whether the task is the row's own (`is_own`), and whether its head is lent by the task's model."""

    score: Score
    is_own: bool = False
    is_lent: bool = False


@dataclass(frozen=True, eq=False)
class TaskMatrix:
    """Accuracy of every row on every task of a split: `cells[row][task]`.

    Rows are the single models, `base` where there is one that fits, then `isotropic`, `fisher` and `ensemble`; `kinds`
    says which ("model", "base", "merge"). `unseen` tasks are no model's own; `note` says why there is no base.
    """

    rows: tuple[str, ...]
    kinds: tuple[str, ...]
    tasks: tuple[str, ...]
    cells: tuple[Mapping[str, MatrixCell], ...]
    unseen: tuple[str, ...]
    split: str
    note: str = ""

    def mean(self, row: int) -> float:
        """The mean accuracy of a row over the tasks."""
        own = self.cells[row]
        return sum(cell.score.value for cell in own.values()) / len(own)


def task_matrix(prepared: Prepared, recipe: Recipe, *, on_progress: OnProgress | None = None) -> TaskMatrix:
    """Scores every model, the base, both merges at the recipe's weights and the ensemble on every task of its split.

    A model without a head for a task has its body under the task's head, as in the ensemble; so has the base.
    """
    report, split = on_progress or (lambda fraction, text: None), recipe.evaluation.split
    count = len(prepared.names)
    steps = count + 4
    report(0.0, "single models and ensemble")
    singles, ensemble = prepared.fixed_predictions(split)
    rows: list[tuple[str, str, dict[str, MatrixCell]]] = []
    for index, name in enumerate(prepared.names):
        report((index + 1) / steps, f"{name} on every task")
        rows.append((name, "model", _model_cells(prepared, index, split, singles[name])))
    report((count + 1) / steps, "base on every task")
    base, note = _base_cells(prepared, recipe, split)
    if base is not None:
        rows.append(("base", "base", base))
    for step, rule in enumerate(("isotropic", "fisher")):
        report((count + 2 + step) / steps, f"{rule} merge on every task")
        found = prepared.predict_merged(prepared.merge(recipe, rule=rule), split, recipe.weights)
        rows.append((rule, "merge", _cells(found)))
    rows.append(("ensemble", "merge", _cells(ensemble)))
    names, kinds, cells = zip(*rows, strict=True)
    unseen = tuple(entry.name for entry in prepared.tasks if not entry.owners)
    return TaskMatrix(names, kinds, tuple(entry.name for entry in prepared.tasks), cells, unseen, split, note)


def _model_cells(prepared: Prepared, index: int, split: str, own: Mapping[str, Prediction]) -> dict[str, MatrixCell]:
    lent: Mapping[str, Prediction] = {}
    if any(entry.name not in own for entry in prepared.tasks):
        alone = [float(index == other) for other in range(len(prepared.names))]
        lent = prepared.predict_merged(prepared.parameters()[index], split, alone)
    cells = {}
    for entry in prepared.tasks:
        found = own.get(entry.name) or lent[entry.name]
        cells[entry.name] = MatrixCell(
            accuracy(found.correct), is_own=index in entry.owners, is_lent=entry.name not in own
        )
    return cells


def _base_cells(prepared: Prepared, recipe: Recipe, split: str) -> tuple[dict[str, MatrixCell] | None, str]:
    if not recipe.base:
        return None, "This choice of models names no base."
    try:
        base = base_with_head(prepared, base_of(prepared, recipe, download=True))
        found = prepared.predict_merged(base, split, recipe.weights)
    except MergingError as problem:
        return None, f"There is no row for the base: {problem}"
    return {name: MatrixCell(accuracy(one.correct), is_lent=True) for name, one in found.items()}, ""


def _cells(predictions: Mapping[str, Prediction]) -> dict[str, MatrixCell]:
    return {name: MatrixCell(accuracy(one.correct)) for name, one in predictions.items()}
