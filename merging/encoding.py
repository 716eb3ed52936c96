"""Rows of a dataset as batches of tensors, by a checkpoint's own tokenizer or image processor."""

from collections.abc import Sequence

import torch

from merging.checkpoints import Checkpoint
from merging.errors import CheckpointError, TaskError

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
    with_rows: bool = False,
    max_tokens: int = MAX_TOKENS,
) -> list[dict[str, torch.Tensor]]:
    """Input columns (one of images, or one or two of texts) and the model's label indices, as batches.

    `by_length` puts the longest texts first; `with_rows`, a batch then says in `rows` where its texts stood.
    `reference` names the task in errors. Texts are cut at `max_tokens`, or at what the tokenizer says that the model takes.

    Raises: TaskError if the columns do not fit the checkpoint.
    """
    processor = checkpoint.processor()
    prepare = _prepare_images if checkpoint.reads_images else _prepare_texts
    if prepare is _prepare_texts:
        _require_padding(processor, checkpoint)
    order = None
    if by_length and prepare is _prepare_texts:
        tokens = processor(*columns, truncation=True, max_length=_most_tokens(processor, max_tokens))["input_ids"]
        order = sorted(range(len(tokens)), key=lambda row: -len(tokens[row]))
        columns, labels = [[column[row] for row in order] for column in columns], [labels[row] for row in order]
    batches = []
    for start in range(0, len(labels), batch_size):
        chunk = [column[start : start + batch_size] for column in columns]
        batch = prepare(chunk, processor, checkpoint, reference, max_tokens)
        batch["labels"] = torch.tensor(labels[start : start + batch_size])
        if with_rows and order:
            batch["rows"] = torch.tensor(order[start : start + batch_size])
        batches.append(batch)
    return batches


def truncated_share(columns: Sequence[list], checkpoint: Checkpoint, *, max_tokens: int = MAX_TOKENS) -> float:
    """The share of the rows whose texts are cut; 0 for pictures."""
    if checkpoint.reads_images or not columns[0]:
        return 0.0
    processor = checkpoint.processor()
    tokens = processor(*columns, verbose=False)["input_ids"]
    return sum(len(row) > _most_tokens(processor, max_tokens) for row in tokens) / len(tokens)


def _prepare_images(
    columns: list[list], processor, checkpoint: Checkpoint, reference: str, max_tokens: int
) -> dict[str, torch.Tensor]:
    if len(columns) != 1 or not hasattr(columns[0][0], "convert"):
        raise TaskError(
            f'Task "{reference}" does not fit "{checkpoint.reference}": expected one column of images, '
            f"got {type(columns[0][0]).__name__}. Pick a task with images, or a text checkpoint."
        )
    vision = checkpoint.config.get("vision_config", checkpoint.config)
    mode = "L" if vision.get("num_channels") == 1 else "RGB"
    return dict(processor(images=[image.convert(mode) for image in columns[0]], return_tensors="pt"))


def _require_padding(processor, checkpoint: Checkpoint) -> None:
    """Lets a tokenizer without a padding token use the one that the configuration names, as GPT-2's classifiers do.

    Raises: CheckpointError if there is none, or if a decoder could not tell where a text ends.
    """
    index = checkpoint.config.get("pad_token_id")
    if processor.pad_token is None and index is not None:
        processor.pad_token = processor.convert_ids_to_tokens(index)
    if processor.pad_token is None or (index is None and checkpoint.architecture.startswith("GPT2")):
        raise CheckpointError(
            f'"{checkpoint.reference}" cannot read texts of different lengths: expected a padding token '
            '("pad_token_id" in config.json), got none. Write one there, for GPT-2 its "eos_token_id".'
        )


def _most_tokens(processor, max_tokens: int) -> int:
    return min(max_tokens, processor.model_max_length)


def _prepare_texts(
    columns: list[list], processor, checkpoint: Checkpoint, reference: str, max_tokens: int
) -> dict[str, torch.Tensor]:
    if not all(isinstance(value, str) for column in columns for value in column):
        raise TaskError(
            f'Task "{reference}" does not fit "{checkpoint.reference}": expected text in every row, '
            "got something else. Pick a task with text, or an image checkpoint."
        )
    cut = {"truncation": True, "max_length": _most_tokens(processor, max_tokens)}
    return dict(processor(*columns, padding=True, return_tensors="pt", **cut))
