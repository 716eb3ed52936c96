"""Tasks: a dataset with its columns, label names and splits, made into batches for a checkpoint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy
import torch
from jaxtyping import Int

from merging.alignment import Alignment
from merging.checkpoints import TEXT_TO_TEXT, Checkpoint
from merging.columns import (
    checked_rows,
    find_alignment,
    guess_columns,
    label_indices,
    likely_columns,
    read_inputs,
)
from merging.documents import is_plain
from merging.encoding import MAX_TOKENS, encoded
from merging.errors import TaskError, quoted, require_choice, shown
from merging.references import is_folder, local_path, zoo_entry
from merging.sources import SPLITS, Source
from merging.task_fields import check_names, find_source, read_columns, read_task_yaml
from merging.text_to_text import prompted
from merging.upload_references import UPLOAD, upload_path


@dataclass(frozen=True, eq=False)
class Task:
    """A dataset with its columns and label names; no row has been read yet.

    `None` for columns or labels means: recognised when the data are read. `alignment` says for each label which of the
    model's outputs it is; without it the names tell.
    """

    name: str
    reference: str
    title: str
    source: Source = field(repr=False)
    inputs: tuple[str, ...] | None = None
    label: str | None = None
    labels: tuple[str, ...] | None = None
    templates: tuple[str, ...] = ()  # of a zero-shot head: "a photo of a {}."
    prompt: str | None = None  # of a text-to-text model: "is it positive? {sentence}"
    max_tokens: int = MAX_TOKENS
    alignment: tuple[int, ...] | None = None

    @property
    def shown_as(self) -> str:
        """What errors call it: its reference, or its name where that is a mapping."""
        return self.name if self.reference.startswith("{") else self.reference

    def has(self, split: str) -> bool:
        """Whether this task has such a split."""
        return split in self.source.parts

    def rows(self, split: str, *, examples: int | None = None, seed: int = 0):
        """The split as a `datasets.Dataset`; with `examples`, that many rows drawn by `seed`, since splits come sorted.

        Rows that a ClassLabel says have no label (-1) are left out.

        Raises: TaskError if there is no such split, or if it cannot be read, has no rows or labels, or misses values.
        """
        require_choice("split", split, SPLITS, error=TaskError)
        if not self.has(split):
            raise TaskError(
                f'Task "{self.shown_as}" has no {split} split: expected a file {split}.parquet, .jsonl or .csv, '
                f"got {quoted(self.source.parts)}. Add the file, or choose another split."
            )
        rows = self.source.stored(split)
        if len(rows) == 0:
            raise TaskError(
                f'Task "{self.shown_as}" has no rows in its {split} split: expected at least one, got 0. Add data.'
            )
        inputs, label = likely_columns(rows.column_names, self.inputs, self.label)
        rows = self.source.select(split, checked_rows(rows, inputs, label, reference=self.shown_as), inputs)
        return rows if examples is None else rows.select(drawn_rows(len(rows), examples, seed))

    def columns(self, split: str) -> tuple[tuple[str, ...], str]:
        """The names of the input columns and of the label column. Raises: TaskError if they are not recognised."""
        return guess_columns(self.rows(split), self.inputs, self.label, reference=self.shown_as)

    def align(self, split: str, checkpoint: Checkpoint) -> Alignment:
        """Which of the checkpoint's outputs each label is. Raises: TaskError if labels of the split are none of them."""
        rows, (_, label) = self.rows(split), self.columns(split)
        names = {"reference": self.shown_as, "given": self.alignment}
        label_indices(rows, label, self.labels, checkpoint, **names)
        return find_alignment(rows, label, self.labels, checkpoint, **names)

    def content_hash(self, split: str, checkpoint: Checkpoint | None = None) -> str:
        """SHA-256 over a split's content, the columns that are used, and the order of the checkpoint's labels."""
        source = self.source
        words = [given for given in (self.templates, self.prompt, self.alignment) if given]
        cut = [split, sorted(source.shares.items()), source.seed] if source.is_cut(split) else []
        order = self.align(split, checkpoint).order if checkpoint else None
        used = [self.inputs, self.label, self.labels, self.max_tokens, *words, cut, order]
        return hashlib.sha256((json.dumps(used) + source.digest(split)).encode()).hexdigest()

    def stamp(self) -> tuple[object, ...]:
        """Changes with all that its batches depend on, as far as that shows without reading rows."""
        source = self.source
        cut = (tuple(source.parts.items()), tuple(source.shares.items()), source.seed)
        columns = (self.inputs, self.label, self.labels, self.templates, self.prompt, self.max_tokens, self.alignment)
        return self.reference, self.name, columns, cut, source.stamp()

    def batches(
        self,
        split: str,
        checkpoint: Checkpoint,
        *,
        batch_size: int = 128,
        examples: int | None = None,
        seed: int = 0,
        by_length: bool = False,
        with_rows: bool = False,
    ) -> list[dict[str, torch.Tensor]]:
        """The split, prepared by the checkpoint's own tokenizer or image processor; `labels` are the model's indices.

        `by_length` puts the longest texts first: little is padded, and a lack of memory shows at once; with `with_rows` a
        batch then says in `rows` where its texts stood.

        Raises: TaskError if columns or labels do not fit the checkpoint.
        """
        rows = self.rows(split, examples=examples, seed=seed)
        _, label = guess_columns(rows, self.inputs, self.label, reference=self.shown_as)
        labels = label_indices(rows, label, self.labels, checkpoint, reference=self.shown_as, given=self.alignment)
        settings = {"batch_size": batch_size, "by_length": by_length, "with_rows": with_rows}
        told = {"reference": self.shown_as, "max_tokens": self.max_tokens}
        return encoded(self.texts(rows, checkpoint), labels, checkpoint, **settings, **told)

    def texts(self, rows, checkpoint: Checkpoint) -> list[list]:
        """What the checkpoint reads of some rows: one column of pictures, or one or two of texts; prompts for a T5."""
        inputs, _ = guess_columns(rows, self.inputs, self.label, reference=self.shown_as)
        if checkpoint.architecture in TEXT_TO_TEXT:
            everything = {name: rows[name][:] for name in rows.column_names}
            return [prompted(everything, self.prompt, inputs=inputs, reference=self.shown_as)]
        return read_inputs(rows, inputs, reference=self.shown_as)


def drawn_rows(count: int, examples: int, seed: int) -> Int[numpy.ndarray, " n"]:
    """Which of `count` rows are drawn by `seed`, in their order; all of them in their own order where more are wanted."""
    return numpy.random.default_rng(seed).permutation(count)[:examples] if examples < count else numpy.arange(count)


def open_task(reference: str | Mapping[str, object], *, name: str | None = None) -> Task:
    """Opens a task without reading its rows.

    `zoo:POOL/NAME`; `upload:…`, as a hosted page calls what its visitor sent; a folder with one file per split, or of class folders of pictures; one data file, or a zip of
    class folders, which are cut into splits by seed; or a mapping that names a `dataset` of the Hub, a `file` or a
    `folder` beside the task's own fields.

    Raises: TaskError, which offers the nearest match.
    """
    if isinstance(reference, Mapping) and is_plain(reference):
        place, named = check_names(reference), json.dumps(dict(reference), sort_keys=True, default=str)
        path = None if place == "dataset" else _local(str(reference[place]))
        return _open(path, reference, named, name)
    if not isinstance(reference, str):
        raise TaskError(
            "A task cannot be opened: expected zoo:POOL/NAME, a folder, a file, or a mapping "
            f'with "dataset", got {shown(reference)}. Mend the recipe.'
        )
    return _open(_local(reference), {}, reference, name)


def _local(reference: str) -> Path:
    if reference.startswith("zoo:"):
        pool, _, entry = reference.removeprefix("zoo:").partition("/")
        return zoo_entry(pool, "tasks", entry, TaskError)
    return upload_path(reference) if reference.startswith(UPLOAD) else local_path(reference)


def _open(path: Path | None, stated: Mapping[str, object], reference: str, name: str | None) -> Task:
    """`stated` are fields that go before those of a folder's task.yaml."""
    about = dict(stated)
    if path is not None and is_folder(path):
        found = read_task_yaml(path, reference)
        inputs = {"text", "image"} if {"text", "image"} & set(about) else set()
        about = {field: value for field, value in found.items() if field not in inputs} | about
        short = path.name
        path = path / str(about.get("data", "."))
    else:
        short = path.stem if path is not None else str(about.get("config") or str(about["dataset"]).split("/")[-1])
    short = str(name or stated.get("name") or short)
    told = short if stated else reference
    return Task(
        name=short,
        reference=reference,
        title=str(about.get("title", short)),
        source=find_source(about, path, reference=told),
        **read_columns(about, reference=told),
    )
