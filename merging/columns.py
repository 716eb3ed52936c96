"""Which columns of a dataset are a task's inputs and its label, what they hold, and which output a label is."""

from collections.abc import Sequence
from functools import lru_cache

from merging.alignment import NONE, Alignment, align
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
    found, label = likely_columns(there, inputs, label)
    if not found or not label:
        raise TaskError(
            f'Task "{reference}" has columns that are not recognised: expected an input ({quoted(SINGLE_INPUTS)} or a pair '
            f'such as "sentence1", "sentence2") and "label", got {quoted(there, 9)}. Name them in task.yaml.'
        )
    return found, label


def likely_columns(
    there: Sequence[str], inputs: Sequence[str] | None = None, label: str | None = None
) -> tuple[tuple[str, ...] | None, str | None]:
    """What `guess_columns` finds among column names; None for what is not recognised or not there."""
    if not inputs:
        inputs = next((pair for pair in TEXT_PAIRS if set(pair) <= set(there)), None)
        inputs = inputs or next(((column,) for column in SINGLE_INPUTS if column in there), None)
    label = label or next((column for column in LABELS if column in there), None)
    return tuple(inputs) if inputs and set(inputs) <= set(there) else None, label if label in there else None


@lru_cache(maxsize=64)
def checked_rows(rows, inputs: tuple[str, ...] | None, label: str | None, *, reference: str):
    """The rows of a stored split that have a label; a ClassLabel of -1 means none.

    Raises: TaskError that names the row where a value is missing, or if there are no labels or no texts at all.
    """
    if label is not None:
        _require_labels(rows, label, reference)
    for column in [*(inputs or ()), *([label] if label is not None else ())]:
        missing = _missing(rows, column, is_label=column == label)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise TaskError(
                f'Task "{reference}" misses values in column "{column}": expected one in every row, '
                f"got none in row {missing[0] + 1}{more}. Fill them in, or take the rows out."
            )
    for column in inputs or ():
        if _is_text(rows, column) and not any(text.strip() for text in rows[column]):
            raise TaskError(
                f'Task "{reference}" has only empty texts in column "{column}": expected text in some row, '
                f"got none in {len(rows)} rows. Check the column."
            )
    if label is not None and hasattr(rows.features[label], "names"):
        values = rows[label][:]
        if -1 in values:
            return rows.select([number for number, value in enumerate(values) if value != -1])
    return rows


def count_empty(rows, inputs: Sequence[str]) -> int:
    """How many rows have an empty text in one of the inputs; they are kept."""
    columns = [rows[column][:] for column in inputs if _is_text(rows, column)]
    return sum(any(not (text or "").strip() for text in row) for row in zip(*columns, strict=True))


def read_inputs(rows, inputs: Sequence[str], *, reference: str) -> list[list]:
    """Each input column's values, pictures decoded. Raises: TaskError that names a picture that is damaged."""
    from datasets import Image

    columns = []
    for column in inputs:
        try:
            columns.append(rows[column][:])
        # Pillow's plugins raise many kinds of errors on damaged files.
        except Exception as problem:
            if not isinstance(rows.features[column], Image):
                raise
            raise _picture_error(rows, column, reference, problem) from problem
    return columns


def find_alignment(
    rows,
    label: str,
    declared: Sequence[str] | None,
    checkpoint: Checkpoint,
    *,
    reference: str,
    given: Sequence[int] | None = None,
) -> Alignment:
    """Which of the checkpoint's outputs each label is, in the order of the dataset's labels (`label_list`).

    Raises: TaskError if words without an order meet outputs without names, or a label is none of the model's.
    """
    outputs = checkpoint.label_names
    names = label_list(rows, label, declared, outputs)
    words = {value for value in _distinct(rows, label) if isinstance(value, str)}
    if words and names is not None:
        if words - set(names):
            raise _unknown_labels(checkpoint, words - set(names), reference)
        # Words in the order of the alphabet: only names can tell which output they are.
        has_order = declared is not None or names == outputs
        if not has_order and (given is not None or align(names, outputs).how not in ("names", "synonyms")):
            raise _unknown_labels(checkpoint, names, reference)
    return align(names, outputs, given=given, reference=reference)


def label_list(rows, label: str, declared: Sequence[str] | None, outputs: Sequence[str] = ()) -> tuple[str, ...] | None:
    """The dataset's label names in their order: declared, the feature's own, the model's, or sorted; None for numbers."""
    names = declared or getattr(rows.features[label], "names", None)
    words = sorted(value for value in _distinct(rows, label) if isinstance(value, str)) if names is None else []
    if words and set(words) <= set(outputs):
        return tuple(outputs)
    if words and not all(word.isdigit() for word in words):
        names = words
    return tuple(names) if names else None


def label_indices(
    rows,
    label: str,
    declared: Sequence[str] | None,
    checkpoint: Checkpoint,
    *,
    reference: str,
    given: Sequence[int] | None = None,
) -> list[int]:
    """The model's output index for every row; `given` is an alignment that the user states.

    Raises: TaskError if a label is not one of the model's.
    """
    outputs = checkpoint.label_names
    names = label_list(rows, label, declared, outputs)
    order = find_alignment(rows, label, declared, checkpoint, reference=reference, given=given).order
    table = {}
    for value in _distinct(rows, label):
        index = names.index(value) if isinstance(value, str) and names else value
        index = int(index) if isinstance(index, str) and index.isdigit() else index
        if not isinstance(index, int) or not 0 <= index < len(order) or order[index] == NONE:
            known = names is not None and isinstance(index, int) and 0 <= index < len(order)
            if known:
                raise _unknown_labels(checkpoint, {names[index]}, reference)
            raise TaskError(
                f'Task "{reference}" does not fit "{checkpoint.reference}": expected labels from 0 to {len(outputs) - 1}, '
                f'got "{value}". Check the label column, or pick the checkpoint of this task.'
            )
        table[value] = order[index]
    return [table[value] for value in rows[label]]


def _require_labels(rows, label: str, reference: str) -> None:
    values = _distinct(rows, label)
    if all(value in (None, -1, "") for value in values):
        raise TaskError(
            f'Task "{reference}" has no labels: expected some in column "{label}", got {quoted(values)} in every row. '
            "Pick another split (GLUE's test labels are not public, its validation rows have some) or another column."
        )


def _missing(rows, column: str, *, is_label: bool) -> list[int]:
    if not rows.data.column(column).null_count and not (is_label and _is_text(rows, column)):
        return []
    values = rows.with_format("arrow")[column]
    return [number for number, value in enumerate(values) if not value.is_valid or (is_label and value.as_py() == "")]


def _distinct(rows, label: str) -> list[object]:
    values = rows[label][:]
    return list(dict.fromkeys(str(value) if isinstance(value, list | dict) else value for value in values))


def _is_text(rows, column: str) -> bool:
    return getattr(rows.features[column], "dtype", "") in ("string", "large_string")


def _unknown_labels(checkpoint: Checkpoint, unknown: Sequence[str] | set[str], reference: str) -> TaskError:
    return TaskError(
        f'Task "{reference}" does not fit "{checkpoint.reference}": expected labels among '
        f"{quoted(checkpoint.label_names)}, got {quoted(unknown)}. Name them as the model does, or give "
        '"labels" in the order of its outputs.'
    )


def _picture_error(rows, column: str, reference: str, problem: Exception) -> TaskError:
    from datasets import Image

    stored = rows.cast_column(column, Image(decode=False))
    for number in range(len(rows)):
        try:
            rows[number][column]
        except Exception as found:
            name = (stored[number][column] or {}).get("path")
            where = f'"{name}"' if name else f"row {number + 1}"
            return TaskError(
                f'Task "{reference}" has a damaged picture: expected one that Pillow reads at {where}, '
                f"got {str(found).strip()[:120]!r}. Replace it, or take it out."
            )
    return TaskError(
        f'Task "{reference}" has damaged pictures: expected some that Pillow reads, got {str(problem)[:120]!r}. Mend them.'
    )
