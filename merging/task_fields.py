"""The fields of a task, as a recipe's mapping or a task.yaml states them, checked."""

from collections.abc import Mapping
from pathlib import Path

from merging.documents import read_text, read_yaml
from merging.encoding import MAX_TOKENS
from merging.errors import TaskError, nearest, quoted, shown
from merging.references import is_file, is_folder, nearest_path
from merging.shares import check_shares
from merging.sources import (
    FORMATS,
    SHARES,
    SPLITS,
    VALIDATION_SHARES,
    Files,
    HubDataset,
    Source,
    find_folder_source,
)
from merging.uploads import receive_upload

PLACES = ("dataset", "file", "folder")
# What a task says of its rows, wherever they come from; `PLACES`, and what only some of them know, come beside it.
FIELDS = (
    *("name", "title", "text", "image", "label", "labels", "alignment"),
    *("templates", "prompt", "max_tokens", "shares", "seed"),
)
HUB_FIELDS = ("config", "revision", "splits")


def check_names(about: Mapping[str, object]) -> str:
    """Which of `PLACES` a mapping names. Raises: TaskError for unknown fields, or unless it is exactly one."""
    places = [place for place in PLACES if place in about]
    allowed = [*FIELDS, *places, *(HUB_FIELDS if "dataset" in places else ())]
    unknown = sorted(str(name) for name in set(about) - set(allowed))
    if len(places) != 1:
        raise TaskError(
            'A task cannot be read: expected one of "dataset" (with "splits"), "file" or "folder", '
            f"got {quoted(about)}. Mend the recipe."
        )
    if unknown:
        raise TaskError(
            f'A task cannot be read: expected fields among {quoted(allowed, 20)}, got "{unknown[0]}". '
            f"{nearest(unknown[0], allowed)}"
        )
    if places == ["dataset"] and not _is_splits(about.get("splits")):
        raise TaskError(
            'A Hub task cannot be read: expected "dataset" and "splits" (for example {fisher: train, test: validation}), '
            f"got {quoted(about)} with splits {shown(about.get('splits'))}. Mend the recipe."
        )
    return places[0]


def find_source(about: Mapping[str, object], path: Path | None, *, reference: str) -> Source:
    """Where the rows come from: a data file, a zip of image folders or a folder at `path`; without one, the Hub.

    Raises: TaskError if there are none.
    """
    seed = about.get("seed", 0)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise _wrong("seed", "a whole number of 0 or more", seed, reference)
    shares = check_shares(about["shares"], SPLITS, what=f'Task "{reference}"') if "shares" in about else None
    if path is None:
        return _hub_source(about, shares, seed)
    suffix = path.suffix.lower()
    if is_file(path) and suffix == ".zip":
        path = receive_upload(path)
    elif is_file(path) and suffix in FORMATS:
        shares = dict(shares or SHARES)
        return Files(parts=dict.fromkeys(shares, "all"), shares=shares, seed=seed, files={"all": path})
    if not is_folder(path):
        got = "a file of another kind" if is_file(path) else "a path that leads nowhere"
        raise TaskError(
            f'There is no task "{reference}": expected a folder, a file that ends in {", ".join((*FORMATS, ".zip"))}, '
            f'zoo:POOL/NAME, or a mapping with "dataset", got {got}. {nearest_path(path)}'
        )
    source = find_folder_source(path, shares=shares, seed=seed)
    if source is None:
        raise TaskError(
            f'"{reference}" is no task: expected one file per split (fisher, validation, test as .parquet, .jsonl, .csv '
            f"or .tsv) or a folder of pictures per class, got {quoted(one.name for one in path.glob('*'))}. "
            "Name a folder with such files."
        )
    return source


def read_task_yaml(folder: Path, reference: str) -> Mapping[str, object]:
    """What a folder's task.yaml says; nothing where there is none. Raises: TaskError if it is damaged."""
    path = folder / "task.yaml"
    if not path.is_file():
        return {}
    try:
        about = read_yaml(read_text(path)) or {}
    except (OSError, ValueError) as problem:
        raise TaskError(
            f'Task "{reference}" is damaged: expected YAML in task.yaml, got {problem}. Mend it.'
        ) from problem
    if not isinstance(about, Mapping):
        raise TaskError(
            f'Task "{reference}" is damaged: expected fields and values in task.yaml, got {shown(about)}. Mend it.'
        )
    return about


def read_columns(about: Mapping[str, object], *, reference: str) -> dict[str, object]:
    """What a task says of its rows, by the names of `Task`'s fields. Raises: TaskError if a value cannot be used."""
    inputs = about.get("image") or about.get("text")
    inputs = [inputs] if isinstance(inputs, str) else inputs
    alignment, max_tokens = about.get("alignment"), about.get("max_tokens", MAX_TOKENS)
    for name in ("labels", "templates", "alignment"):
        if not isinstance(about.get(name), list | tuple | None):
            raise _wrong(name, "a list", about[name], reference)
    if inputs is not None and not (_are(inputs, str) and 1 <= len(inputs) <= 2):
        raise _wrong("columns", "the name of one column, or of two of texts", inputs, reference)
    if alignment is not None and not _are(alignment, int):
        raise _wrong("alignment", "the model's output for each label, as whole numbers", alignment, reference)
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise _wrong("max_tokens", "a whole number of 1 or more", max_tokens, reference)
    for name in ("label", "prompt"):
        if not isinstance(about.get(name), str | None):
            raise _wrong(name, "text", about[name], reference)
    return {
        "inputs": None if inputs is None else tuple(inputs),
        "label": about.get("label"),
        "labels": tuple(str(label) for label in about["labels"]) if about.get("labels") else None,
        "templates": tuple(str(template) for template in about.get("templates") or ()),
        "prompt": about.get("prompt"),
        "max_tokens": max_tokens,
        "alignment": None if alignment is None else tuple(alignment),
    }


def _hub_source(about: Mapping[str, object], shares: Mapping[str, float] | None, seed: int) -> HubDataset:
    parts = {str(split): str(part) for split, part in about["splits"].items()}
    # A validation split that the dataset lacks is cut from the rows for the Fisher, which then go without them.
    if "fisher" in parts:
        parts.setdefault("validation", parts["fisher"])
    shares = shares or (SHARES if parts.get("test") == parts.get("fisher") else VALIDATION_SHARES)
    config, revision = about.get("config"), about.get("revision")
    return HubDataset(
        parts=parts,
        shares=shares,
        seed=seed,
        dataset=str(about["dataset"]),
        config=None if config is None else str(config),
        revision=None if revision is None else str(revision),
    )


def _is_splits(splits: object) -> bool:
    return isinstance(splits, Mapping) and bool(splits) and set(splits) <= set(SPLITS)


def _are(values: object, kind: type) -> bool:
    return isinstance(values, list | tuple) and all(type(value) is kind for value in values)


def _wrong(name: str, expected: str, got: object, reference: str) -> TaskError:
    return TaskError(
        f'Task "{reference}" has {name} that cannot be used: expected {expected}, got {shown(got)}. Mend it.'
    )
