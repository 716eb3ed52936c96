"""Tasks: a dataset with its columns, label names and splits, made into batches for a checkpoint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
import yaml

from merging.checkpoints import Checkpoint
from merging.columns import guess_columns, label_indices
from merging.encoding import MAX_TOKENS, encoded
from merging.errors import TaskError, quoted, require_choice
from merging.references import nearest_folder, zoo_entry

SPLITS = ("fisher", "validation", "test")
FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv"}
VALIDATION_SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Task:
    """A dataset with its columns and label names; no row has been read yet.

    `files` holds one local file per split, or `hub` the dataset, configuration and split names of a Hub dataset.
    `None` for columns or labels means: recognised when the data are read.
    """

    name: str
    reference: str
    title: str
    files: Mapping[str, Path] = field(default_factory=dict, repr=False)
    hub: Mapping[str, object] | None = field(default=None, repr=False)
    inputs: tuple[str, ...] | None = None
    label: str | None = None
    labels: tuple[str, ...] | None = None

    def has(self, split: str) -> bool:
        """Whether this task has such a split."""
        named = self.files or (self.hub or {}).get("splits", {})
        return split in named or (split == "validation" and self.hub is not None and "fisher" in named)

    def rows(self, split: str, *, examples: int | None = None, seed: int = 0):
        """The split as a `datasets.Dataset`; with `examples`, that many rows drawn by `seed`, since splits come sorted.

        Raises: TaskError if there is no such split, if it cannot be read, or if it has no rows.
        """
        require_choice("split", split, SPLITS, error=TaskError)
        if not self.has(split):
            raise TaskError(
                f'Task "{self.reference}" has no {split} split: expected a file {split}.parquet, .jsonl or .csv, '
                f"got {quoted(self.files or (self.hub or {}).get('splits', []))}. Add the file, or choose another split."
            )
        rows = (
            _load_file(self.files[split], self.files[split].stat().st_mtime_ns)
            if self.files
            else _load_hub(self, split)
        )
        if len(rows) == 0:
            raise TaskError(
                f'Task "{self.reference}" has no rows in its {split} split: expected at least one, got 0. Add data.'
            )
        if examples is not None and examples < len(rows):
            rows = rows.shuffle(seed=seed).select(range(examples))
        return rows

    def content_hash(self, split: str) -> str:
        """SHA-256 over a split's content and the columns that are used."""
        columns = json.dumps([self.inputs, self.label, self.labels, MAX_TOKENS])
        digest = hashlib.sha256(columns.encode())
        digest.update(self.files[split].read_bytes() if self.files else self.rows(split)._fingerprint.encode())
        return digest.hexdigest()

    def batches(
        self,
        split: str,
        checkpoint: Checkpoint,
        *,
        batch_size: int = 128,
        examples: int | None = None,
        seed: int = 0,
        by_length: bool = False,
    ) -> list[dict[str, torch.Tensor]]:
        """The split, prepared by the checkpoint's own tokenizer or image processor; `labels` are the model's indices.

        `by_length` puts the longest texts first: little is padded, and a lack of memory shows at once.

        Raises: TaskError if columns or labels do not fit the checkpoint.
        """
        rows = self.rows(split, examples=examples, seed=seed)
        inputs, label = guess_columns(rows, self.inputs, self.label, reference=self.reference)
        labels = label_indices(rows, label, self.labels, checkpoint, reference=self.reference)
        columns = [rows[column][:] for column in inputs]
        return encoded(
            columns, labels, checkpoint, batch_size=batch_size, by_length=by_length, reference=self.reference
        )


def open_task(reference: str | Mapping[str, object], *, name: str | None = None) -> Task:
    """Opens `zoo:POOL/NAME`, a folder with one file per split, or a mapping that names a Hub dataset.

    Raises: TaskError, which offers the nearest match.
    """
    if isinstance(reference, Mapping):
        return _hub_task(reference, name)
    if not isinstance(reference, str):
        raise TaskError(
            f'A task cannot be opened: expected zoo:POOL/NAME, a folder, or a mapping with "dataset", got {reference!r}. '
            "Mend the recipe."
        )
    if reference.startswith("zoo:"):
        pool, _, entry = reference.removeprefix("zoo:").partition("/")
        folder = zoo_entry(pool, "tasks", entry, TaskError)
    else:
        folder = Path(reference).expanduser()
    if not folder.is_dir():
        raise TaskError(
            f'There is no task "{reference}": expected zoo:POOL/NAME, a folder, or a mapping with "dataset", '
            f"got a path that is no folder. {nearest_folder(folder)}"
        )
    return _folder_task(folder, reference, name)


def _folder_task(folder: Path, reference: str, name: str | None) -> Task:
    about = {}
    if (folder / "task.yaml").is_file():
        try:
            about = yaml.safe_load((folder / "task.yaml").read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as problem:
            raise TaskError(
                f'Task "{reference}" is damaged: expected YAML in task.yaml, got {str(problem).splitlines()[0]}. Mend it.'
            ) from problem
        if not isinstance(about, Mapping):
            raise TaskError(
                f'Task "{reference}" is damaged: expected fields and values in task.yaml, got {about!r:.80}. Mend it.'
            )
    data = folder / str(about.get("data", "."))
    files = {split: path for split in SPLITS for suffix in FORMATS if (path := data / f"{split}{suffix}").is_file()}
    if not files:
        raise TaskError(
            f'"{reference}" is no task: expected one file per split (fisher, validation, test as .parquet, .jsonl or '
            f".csv), got {quoted(path.name for path in data.glob('*'))}. Name a folder with such files."
        )
    inputs = about.get("image") or about.get("text")
    return Task(
        name=name or folder.name,
        reference=reference,
        title=str(about.get("title", name or folder.name)),
        files=files,
        inputs=None if inputs is None else ((inputs,) if isinstance(inputs, str) else tuple(inputs)),
        label=about.get("label"),
        labels=tuple(str(label) for label in about["labels"]) if about.get("labels") else None,
    )


def _hub_task(about: Mapping[str, object], name: str | None) -> Task:
    allowed = {"dataset", "config", "splits", "text", "image", "label", "labels", "name"}
    unknown = set(about) - allowed
    if unknown or "dataset" not in about or not isinstance(about.get("splits"), Mapping):
        raise TaskError(
            f'A Hub task cannot be read: expected "dataset" and "splits" (for example {{fisher: train, test: validation}}) '
            f"among {quoted(allowed, 9)}, got {quoted(about)}. Mend the recipe."
        )
    inputs = about.get("image") or about.get("text")
    short = name or about.get("name") or about.get("config") or str(about["dataset"]).split("/")[-1]
    return Task(
        name=str(short),
        reference=json.dumps(dict(about), sort_keys=True),
        title=str(short),
        hub=dict(about),
        inputs=None if inputs is None else ((inputs,) if isinstance(inputs, str) else tuple(inputs)),
        label=about.get("label"),
        labels=tuple(about["labels"]) if about.get("labels") else None,
    )


@lru_cache(maxsize=64)
def _load_file(path: Path, modified_ns: int):
    from datasets import load_dataset

    try:
        return load_dataset(FORMATS[path.suffix], data_files=str(path), split="train")
    # datasets passes on whatever pyarrow, pandas or json raise.
    except Exception as problem:
        if path.stat().st_size == 0 or "corresponds to no data" in str(problem):
            raise TaskError(f'"{path.name}" has no rows: expected at least one, got 0. Add data.') from problem
        raise TaskError(
            f'"{path.name}" cannot be read: expected {path.suffix} data, got {str(problem).strip()[:200]!r}. Mend the file.'
        ) from problem


def _load_hub(task: Task, split: str):
    from datasets import load_dataset

    about = task.hub
    # A validation split that the dataset lacks is cut from the rows for the Fisher, which then go without them.
    is_cut = split in ("fisher", "validation") and "validation" not in about["splits"] and "fisher" in about["splits"]
    try:
        rows = load_dataset(about["dataset"], about.get("config"), split=about["splits"]["fisher" if is_cut else split])
    # datasets passes on whatever the Hub's client, pyarrow or pandas raise.
    except Exception as problem:
        raise TaskError(
            f'Dataset "{about["dataset"]}" cannot be had: expected it on the Hugging Face Hub, got '
            f"{str(problem).strip()[:200]!r}. Check the spelling and the connection, or use a folder."
        ) from problem
    if not is_cut:
        return rows
    return rows.train_test_split(test_size=VALIDATION_SHARE, seed=0)["train" if split == "fisher" else "test"]
