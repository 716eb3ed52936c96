"""Rows and splits of the sentences pool, drawn by seed from its grammar. All of it is synthetic.

Each task has the splits `fisher` (1000 rows, trains the expert), `validation` (300) and `test` (400); the base learns
from rows of its own, which are not written. Half of all rows have each label. Within a task, no sentence occurs twice
in whatever split, nor a pair in whatever order.
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import datasets
import yaml

from merging.zoo.sentences_tasks import BASE_TASKS, TASKS, SentenceTask

SPLIT_SIZES = {"fisher": 1000, "validation": 300, "test": 400}


@dataclass(frozen=True)
class SentenceRows:
    """Rows of one or two sentences, and the label of each."""

    texts: list[tuple[str, ...]]
    labels: list[int]


def split_sentences(seed: int) -> dict[str, dict[str, SentenceRows]]:
    """The rows of every task and split, drawn by `seed`."""
    return {name: _splits_of(task, Random(f"{seed}/{name}")) for name, task in TASKS.items()}


def draw_more(splits: dict[str, SentenceRows], name: str, count: int, *, seed: int) -> SentenceRows:
    """About `count` rows for the base, with its labels of the task `name`, that are in none of the splits."""
    task, random = BASE_TASKS[name], Random(f"{seed}/{name}/base")
    seen = {_key(texts) for rows in splits.values() for texts in rows.texts}
    rows = [
        (texts, label)
        for label, share in enumerate(task.shares)
        for texts in _drawn(task, label, random, count=count * share // sum(task.shares), seen=seen)
    ]
    return SentenceRows([texts for texts, _ in rows], [label for _, label in rows])


def write_data(folder: Path, splits: dict[str, dict[str, SentenceRows]]) -> None:
    """Write the data and the tasks of the pool: `data/TASK/SPLIT.parquet` and `tasks/TASK/task.yaml`."""
    for name, task in TASKS.items():
        for split, rows in splits[name].items():
            write_rows(folder / "data" / name / f"{split}.parquet", rows, task)
        write_task(folder / "tasks" / name, task, data=name)


def write_rows(path: Path, rows: SentenceRows, task: SentenceTask) -> None:
    """Write one split as parquet: one or two columns of text, and the label's index."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {column: [texts[index] for texts in rows.texts] for index, column in enumerate(task.columns)}
    features = {**{column: datasets.Value("string") for column in task.columns}, "label": datasets.Value("int64")}
    table = datasets.Dataset.from_dict({**columns, "label": rows.labels}, features=datasets.Features(features))
    table.to_parquet(path)


def write_task(folder: Path, task: SentenceTask, *, data: str) -> None:
    """Write task.yaml, which finds the data relative to its own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    fields = {
        "title": task.title,
        "data": f"../../data/{data}",
        "text": list(task.columns),
        "label": "label",
        "labels": list(task.labels),
    }
    (folder / "task.yaml").write_text(yaml.safe_dump(fields, sort_keys=False, default_flow_style=None, width=120))


def _splits_of(task: SentenceTask, random: Random) -> dict[str, SentenceRows]:
    """All rows are drawn before they are cut, so that the last split has no more of the rare ones."""
    seen: set[tuple[str, ...]] = set()
    half = sum(SPLIT_SIZES.values()) // len(task.labels)
    drawn = {label: _drawn(task, label, random, count=half, seen=seen) for label in range(len(task.labels))}
    splits = {}
    for split, size in SPLIT_SIZES.items():
        rows = [(drawn[label].pop(), label) for label in drawn for _ in range(size // len(drawn))]
        random.shuffle(rows)
        splits[split] = SentenceRows([texts for texts, _ in rows], [label for _, label in rows])
    return splits


def _drawn(
    task: SentenceTask, label: int, random: Random, *, count: int, seen: set[tuple[str, ...]]
) -> list[tuple[str, ...]]:
    """New rows of one label; `seen` is added to."""
    rows: list[tuple[str, ...]] = []
    while len(rows) < count:
        texts = task.draw(random, label)
        if _key(texts) not in seen and len(set(texts)) == len(texts):
            seen.add(_key(texts))
            rows.append(texts)
    return rows


def _key(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The same for a pair in either order."""
    return tuple(sorted(texts))
