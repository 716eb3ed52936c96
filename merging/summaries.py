"""What a task is, for the page to show and for its user to correct, before anything is merged."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from merging.alignment import Alignment
from merging.checkpoints import Checkpoint
from merging.columns import count_empty, label_list, likely_columns
from merging.dataset_library import library
from merging.encoding import truncated_share
from merging.errors import TaskError, require_choice
from merging.families import answering
from merging.hub_datasets import asked_of, check_card, require_rows
from merging.sources import SPLIT_FOLDERS, SPLITS
from merging.tasks import Task, open_task

# Rows and characters that are shown of a dataset.
SHOWN_ROWS = 2
READ_AT_ONCE = 10 << 20  # bytes of a JSON file; its first rows come out of them
SHOWN_CHARACTERS = 200
LARGEST_LABEL_SET = 1000


@dataclass(frozen=True)
class TaskSummary:
    """What is found of a task: `reference` opens it as it is described here, guesses included.

    `columns` are name and type; `inputs`, `label` and `labels` are None where they are not recognised; `splits` has the
    number of rows, None where only reading them would tell; `examples` are rows as text. `configs` and `parts` are the
    configurations and splits that a Hub dataset offers.
    """

    reference: str | Mapping[str, object]
    columns: tuple[tuple[str, str], ...]
    inputs: tuple[str, ...] | None
    label: str | None
    labels: tuple[str, ...] | None
    splits: Mapping[str, int | None]
    examples: tuple[Mapping[str, str], ...]
    notes: tuple[str, ...] = ()
    configs: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class TaskFit:
    """How a checkpoint reads a task's split: which output each label is, and what happens to its texts."""

    alignment: Alignment
    labels: tuple[str, ...]
    truncated_share: float
    empty_texts: int
    rows: int
    notes: tuple[str, ...]


def describe_task(reference: str | Mapping[str, object]) -> TaskSummary:
    """What stands in a task; of a Hub dataset only its card and a first row are read, and `splits` may be missing.

    Raises: TaskError if there is no such task or if it cannot be read.
    """
    if isinstance(reference, Mapping) and "dataset" in reference:
        return _describe_hub(reference)
    task = open_task(reference)
    counts, notes, first = {}, [], None
    for split in SPLITS:
        if task.has(split):
            try:
                rows = task.rows(split)
            except TaskError as problem:
                notes.append(str(problem))
                continue
            counts[split], first = len(rows), rows if first is None else first
    if first is None:
        raise TaskError(notes[0])
    features = {name: first.features[name] for name in first.column_names}
    inputs, label = likely_columns(first.column_names, task.inputs, task.label)
    labels = label_list(first, label, task.labels) if label else None
    empty = count_empty(first, inputs or ())
    notes += [f"{empty} of {len(first)} rows have an empty text; they are kept."] if empty else []
    if any(task.source.is_cut(split) for split in counts):
        notes.append(f"The splits are cut from one set of rows by seed {task.source.seed}; equal rows stay together.")
    return _summary(reference, features, _shown(first, features), inputs, label, labels, counts, notes)


def fit_task(task: Task, split: str, checkpoint: Checkpoint, *, examples: int | None = None, seed: int = 0) -> TaskFit:
    """How a checkpoint reads a split, or `examples` rows of it; its pictures are not looked at.

    Raises: TaskError if columns or labels do not fit the checkpoint.
    """
    checkpoint = answering(checkpoint, task)
    alignment, (inputs, label) = task.align(split, checkpoint), task.columns(split)
    rows = task.rows(split, examples=examples, seed=seed)
    share, empty = 0.0, count_empty(rows, inputs)
    if not checkpoint.reads_images:
        share = truncated_share(task.texts(rows, checkpoint), checkpoint, max_tokens=task.max_tokens)
    notes = [alignment.sentence]
    notes += [f"{share:.1%} of the rows are cut at {task.max_tokens} tokens."] if share else []
    notes += [f"{empty} of {len(rows)} rows have an empty text; they are kept."] if empty else []
    names = label_list(rows, label, task.labels, checkpoint.label_names)
    names = names or tuple(str(index) for index in range(len(alignment.order)))
    return TaskFit(alignment, names, share, empty, len(rows), tuple(notes))


def _describe_hub(about: Mapping[str, object]) -> TaskSummary:
    from datasets import Dataset, get_dataset_config_names

    dataset, config, revision = str(about["dataset"]), about.get("config"), about.get("revision")

    def ask(token: bool | str | None):
        commit = check_card(dataset, revision, token)
        configs = get_dataset_config_names(dataset, revision=commit, token=token)
        if config is None and len(configs) > 1 and "default" not in configs:
            return configs, None, {}
        builder = library().load_dataset_builder(dataset, config, revision=commit, token=token)
        require_rows(builder, token, most_bytes=READ_AT_ONCE)
        streams = builder.as_streaming_dataset()
        # Pictures may be named only, by paths and addresses of which nothing is known yet.
        return configs, builder, {part: rows.decode(False) for part, rows in streams.items()}

    configs, builder, streams = asked_of(dataset, ask, config=config)
    offered = {"configs": tuple(configs), "parts": tuple(streams)}
    if builder is None:
        notes = (f"It has {len(configs)} configurations: pick one.",)
        return TaskSummary(about, (), None, None, None, {}, (), notes, **offered)
    splits, notes = about.get("splits"), []
    if not splits:
        splits = _guess_splits(streams, about.get("label"))
        notes.append("Splits are guessed by their names; one without labels, such as GLUE's test, is left out.")
    for part in splits.values():
        require_choice(f'split of "{dataset}"', part.split("[")[0], streams, error=TaskError)
    examples = list(streams[next(iter(splits.values())).split("[")[0]].take(SHOWN_ROWS))
    features = builder.info.features or Dataset.from_list(examples).features
    inputs, label = likely_columns(list(features), _inputs(about), about.get("label"))
    labels = about.get("labels") or getattr(features.get(label), "names", None)
    stored = builder.info.splits or {}
    counts = {split: getattr(stored.get(part), "num_examples", None) or None for split, part in splits.items()}
    texts = tuple({name: _text(value) for name, value in row.items()} for row in examples)
    summary = _summary({**about, "splits": splits}, features, texts, inputs, label, labels, counts, notes)
    return replace(summary, **offered)


def _guess_splits(streams: Mapping[str, object], label: str | None) -> dict[str, str]:
    """Splits by their names; one whose first row has no label, or -1 (GLUE's test), is none."""
    splits: dict[str, str] = {}
    for part in streams:
        split = SPLIT_FOLDERS.get(part.lower()) or SPLIT_FOLDERS.get(part.lower().split("_")[0])
        if split and split not in splits:
            row = next(iter(streams[part]), {})
            column = likely_columns(list(row), None, label)[1]
            if column is None or row[column] not in (None, -1):
                splits[split] = part
    if "test" not in splits and "validation" in splits:
        splits["test"] = splits.pop("validation")
    splits.setdefault("fisher", next(iter(streams)))
    return splits if "test" in splits else dict.fromkeys(SPLITS, splits["fisher"])


def _summary(reference, features, examples, inputs, label, labels, counts, notes) -> TaskSummary:
    lacking = [what for what, found in (("input", inputs), ("label", label)) if not found]
    notes += [f"No {what} column is recognised: name it." for what in lacking]
    if labels is not None and len(labels) > LARGEST_LABEL_SET:
        notes.append(f"{len(labels)} labels: is this the label column?")
    columns = tuple((name, _kind(feature)) for name, feature in features.items())
    labels = tuple(str(name) for name in labels) if labels else None
    return TaskSummary(reference, columns, inputs, label, labels, counts, examples, tuple(notes))


def _shown(rows, features: Mapping[str, object]) -> tuple[Mapping[str, str], ...]:
    from datasets import Image

    for name, feature in features.items():
        if isinstance(feature, Image):
            rows = rows.cast_column(name, Image(decode=False))
    return tuple(
        {name: _text(value) for name, value in row.items()} for row in rows.select(range(min(len(rows), SHOWN_ROWS)))
    )


def _kind(feature: object) -> str:
    from datasets import ClassLabel, Image

    if isinstance(feature, ClassLabel):
        return f"label of {len(feature.names)}"
    if isinstance(feature, Image):
        return "image"
    dtype = getattr(feature, "dtype", None)
    words = {"string": "text", "large_string": "text", "bool": "yes or no", "null": "nothing", None: "other"}
    return words.get(dtype, "number" if str(dtype).startswith(("int", "uint", "float")) else str(dtype))


def _text(value: object) -> str:
    if isinstance(value, Mapping) and set(value) == {"bytes", "path"}:
        return str(value["path"] or "an image").rsplit("/", 1)[-1]
    if hasattr(value, "convert"):
        return f"an image of {value.width} x {value.height}"
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _inputs(about: Mapping[str, object]) -> tuple[str, ...] | None:
    inputs = about.get("image") or about.get("text")
    return (inputs,) if isinstance(inputs, str) else tuple(inputs) if inputs else None
