"""Which columns of a dataset are a task's inputs and its label, and which of the model's outputs a label is."""

from collections.abc import Sequence

from merging.checkpoints import Checkpoint
from merging.errors import TaskError, nearest, quoted

TEXT_PAIRS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("text1", "text2"),
)
SINGLE_INPUTS = ("image", "img", "sentence", "text", "content")
LABELS = ("label", "labels", "fine_label", "target")


def guess_columns(
    rows, inputs: Sequence[str] | None, label: str | None, *, reference: str
) -> tuple[tuple[str, ...], str]:
    """The input columns (one image, or one or two texts) and the label column: as given, else by their usual names.

    Raises: TaskError, which offers the nearest match.
    """
    there = rows.column_names
    for column in [*(inputs or ()), *([label] if label else ())]:
        if column not in there:
            raise TaskError(
                f'Task "{reference}" has no column "{column}": expected one of {quoted(there, 9)}. {nearest(column, there)}'
            )
    if not inputs:
        inputs = next((pair for pair in TEXT_PAIRS if set(pair) <= set(there)), None)
        inputs = inputs or next(((column,) for column in SINGLE_INPUTS if column in there), None)
    label = label or next((column for column in LABELS if column in there), None)
    if not inputs or not label:
        raise TaskError(
            f'Task "{reference}" has columns that are not recognised: expected an input ({quoted(SINGLE_INPUTS)} or a pair '
            f'such as "sentence1", "sentence2") and "label", got {quoted(there, 9)}. Name them in task.yaml.'
        )
    return tuple(inputs), label


def label_indices(
    rows, label: str, declared: Sequence[str] | None, checkpoint: Checkpoint, *, reference: str
) -> list[int]:
    """The model's output index for every row.

    Labels that are names, or indices into declared names, are matched with the model's own names where those
    are the same set (their order may differ); other indices are taken as the model's.

    Raises: TaskError if a label is not one of the model's.
    """
    values = list(rows[label][:])
    feature = rows.features[label]
    if declared is None and hasattr(feature, "names"):
        declared = feature.names
    model_names = checkpoint.label_names
    if all(isinstance(value, str) for value in values):
        order = list(model_names) if set(values) <= set(model_names) else list(declared or ())
        unknown = set(values) - set(order)
        if unknown:
            raise TaskError(
                f'Task "{reference}" does not fit "{checkpoint.reference}": expected labels among {quoted(model_names)}, '
                f"got {quoted(unknown)}. Name the labels as the model does."
            )
        values = [order.index(value) for value in values]
    elif declared and set(declared) == set(model_names) and _are_indices(values, len(declared)):
        values = [model_names.index(declared[value]) for value in values]
    if not _are_indices(values, len(model_names)):
        wrong = {value for value in values if not _are_indices([value], len(model_names))}
        raise TaskError(
            f'Task "{reference}" does not fit "{checkpoint.reference}": expected labels from 0 to {len(model_names) - 1}, '
            f"got {quoted(wrong)}. Check the label column, or pick the checkpoint of this task."
        )
    return [int(value) for value in values]


def _are_indices(values: Sequence[object], count: int) -> bool:
    return all(isinstance(value, int) and 0 <= value < count for value in values)
