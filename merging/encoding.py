"""Rows of a dataset as batches of tensors, by a checkpoint's own tokenizer or image processor."""

from collections.abc import Sequence

import torch

from merging.checkpoints import Checkpoint
from merging.errors import TaskError

# Matena & Raffel used 128 tokens.
MAX_TOKENS = 128


def encoded(
    columns: Sequence[list],
    labels: Sequence[int],
    checkpoint: Checkpoint,
    *,
    batch_size: int,
    by_length: bool,
    reference: str,
) -> list[dict[str, torch.Tensor]]:
    """Input columns (one of images, or one or two of texts) and the model's label indices, as batches.

    `by_length` puts the longest texts first. `reference` names the task in errors.

    Raises: TaskError if the columns do not fit the checkpoint.
    """
    processor = checkpoint.processor()
    prepare = _prepare_images if checkpoint.architecture.endswith("ForImageClassification") else _prepare_texts
    if by_length and prepare is _prepare_texts:
        order = _longest_first(columns, processor)
        columns, labels = [[column[row] for row in order] for column in columns], [labels[row] for row in order]
    batches = []
    for start in range(0, len(labels), batch_size):
        chunk = [column[start : start + batch_size] for column in columns]
        batch = prepare(chunk, processor, checkpoint, reference)
        batch["labels"] = torch.tensor(labels[start : start + batch_size])
        batches.append(batch)
    return batches


def _prepare_images(columns: list[list], processor, checkpoint: Checkpoint, reference: str) -> dict[str, torch.Tensor]:
    if len(columns) != 1 or not hasattr(columns[0][0], "convert"):
        raise TaskError(
            f'Task "{reference}" does not fit "{checkpoint.reference}": expected one column of images, '
            f"got {type(columns[0][0]).__name__}. Pick a task with images, or a text checkpoint."
        )
    mode = "L" if checkpoint.config.get("num_channels") == 1 else "RGB"
    return dict(processor(images=[image.convert(mode) for image in columns[0]], return_tensors="pt"))


def _longest_first(columns: list[list], processor) -> list[int]:
    tokens = processor(*columns, truncation=True, max_length=_most_tokens(processor))["input_ids"]
    return sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))


def _most_tokens(processor) -> int:
    return min(MAX_TOKENS, processor.model_max_length)


def _prepare_texts(columns: list[list], processor, checkpoint: Checkpoint, reference: str) -> dict[str, torch.Tensor]:
    if not all(isinstance(value, str) for column in columns for value in column):
        raise TaskError(
            f'Task "{reference}" does not fit "{checkpoint.reference}": expected text in every row, '
            "got something else. Pick a task with text, or an image checkpoint."
        )
    cut = {"truncation": True, "max_length": _most_tokens(processor)}
    return dict(processor(*columns, padding=True, return_tensors="pt", **cut))
