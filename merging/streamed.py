"""A recipe carried out from file to file: at most one model is in memory, while its Fisher is estimated."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from merging import cache
from merging.checkpoints import Checkpoint, body_prefix, open_checkpoint
from merging.chunks import Renamed, TensorsInMemory
from merging.devices import resolve_device
from merging.errors import CheckpointError, RecipeError
from merging.estimates import fisher_key, fisher_of
from merging.export import copy_companions, task_folders, write_papers
from merging.families import answers_in_words, base_parameters, open_models
from merging.folders import replace_folder, require_exportable, require_space
from merging.headers import weight_files
from merging.model_card import card_text
from merging.pipeline import Opened, open_recipe, timed
from merging.prepared import COUNTER
from merging.recipe import Recipe
from merging.rules import RULES
from merging.stored_names import model_names
from merging.streaming import FileMerge, exchange_body
from merging.tasks import Task
from merging.tensor_files import TensorFiles

OnProgress = Callable[[float, str], None]


@dataclass(frozen=True)
class Streamed:
    """What a streamed merge wrote; `timings` in seconds by phase."""

    output: Path
    names: list[str]
    timings: dict[str, float] = field(default_factory=dict)


def stream(recipe: Recipe, folder: str | Path, on_progress: OnProgress | None = None) -> Streamed:
    """Merges a recipe's checkpoints into `folder` as `export` does, without a score and in the checkpoints' own dtype.

    Fishers that are not cached are estimated one model after the other. `on_progress` may raise `Cancelled`.

    Raises: MergingError; RecipeError for models whose heads are made of a task's words.
    """
    report = on_progress or (lambda fraction, text: None)
    folder = Path(folder).expanduser()
    require_exportable(folder)
    timings: dict[str, float] = {}
    with timed(timings, "open"):
        opened = open_recipe(recipe, report)
        model = _outline(opened.checkpoints[0])
        names = model_names(opened.checkpoints[0], model)
    with timed(timings, "fisher"):
        fishers = _fisher_files(recipe, opened, report) if RULES[recipe.rule].needs_fisher else None
    with timed(timings, "merge"):
        sources = [checkpoint.folder for checkpoint in opened.checkpoints]
        settings = _names(recipe, model, names) | _base(recipe, opened.checkpoints[0], names)
        settings |= {name: getattr(recipe.fisher, name) for name in ("normalise", "zero_rule")}
        settings |= {"floor": float(recipe.fisher.floor), "weights": recipe.weights}
        with ExitStack() as files:
            if fishers:
                opened_fishers = [files.enter_context(TensorFiles([path])) for path in fishers]
                settings["fishers"] = [Renamed(fisher, names) for fisher in opened_fishers]
            merge = files.enter_context(FileMerge(sources, recipe.rule, **settings))
            require_space(folder, _size_bytes(recipe, opened, merge))
            replace_folder(folder, lambda temporary: _write(temporary, recipe, opened, merge, model, report))
    return Streamed(folder, opened.names, timings)


def _outline(checkpoint: Checkpoint) -> nn.Module:
    """The model without its numbers. Raises: RecipeError if it has no head of its own."""
    import transformers

    if answers_in_words(checkpoint):
        raise RecipeError(
            f'"{checkpoint.reference}" cannot be streamed: expected a classifier with a head of its own, got '
            f"{checkpoint.architecture}. Merge it by `run`."
        )
    architecture = getattr(transformers, checkpoint.architecture)
    with torch.device("meta"):
        return architecture(architecture.config_class.from_pretrained(checkpoint.folder, local_files_only=True))


def _names(recipe: Recipe, model: nn.Module, names: Mapping[str, str]) -> dict[str, object]:
    """What becomes of the first checkpoint's tensors; `names` are the model's by the stored ones."""
    buffers = {name for name, _ in model.named_buffers()}
    counters = {name for name in buffers if name.split(".")[-1] == COUNTER}
    # Of parameters that are one, transformers needs one.
    once = {name for name, _ in model.named_parameters()} | buffers
    prefix = "" if recipe.heads == "merge" else body_prefix(model)

    def stored(wanted: Callable[[str], bool]) -> set[str]:
        return {name for name, own in names.items() if wanted(own)}

    kept = stored(lambda own: own in once and own.startswith(prefix))
    return {
        "averaged": stored(lambda own: own in buffers - counters),
        "copied": stored(lambda own: own in counters),
        "left_out": lambda name: name not in kept,
    }


def _base(recipe: Recipe, first: Checkpoint, names: Mapping[str, str]) -> dict[str, object]:
    if not (RULES[recipe.rule].needs_fisher and recipe.fisher.zero_rule == "base" and recipe.base):
        return {}
    parameters = base_parameters(first, open_checkpoint(recipe.base, is_base=True), "cpu")
    return {"base": Renamed(TensorsInMemory(parameters), names)}


def _fisher_files(recipe: Recipe, opened: Opened, report: OnProgress) -> list[Path]:
    """The cache's files; what is missing is estimated with one model in memory at a time."""
    device, count = resolve_device(recipe.device), len(opened.names)
    files = []
    for index, (checkpoint, task) in enumerate(zip(opened.checkpoints, opened.own, strict=True)):
        path = cache.entry_path(fisher_key(checkpoint, task, recipe.fisher, device))
        if not _is_whole(path):

            def tell(fraction: float, text: str, index: int = index) -> None:
                report((index + fraction) / count, f"Fisher of {opened.names[index]} ({index + 1} of {count}): {text}")

            _estimate(checkpoint, task, recipe, device, tell)
        files.append(path)
    return files


def _estimate(checkpoint: Checkpoint, task: Task, recipe: Recipe, device: str, report: OnProgress) -> None:
    report(0.0, "reading")
    task.align("fisher", checkpoint)
    (module,) = open_models([checkpoint], [task], device)
    fisher_of(checkpoint, task, module, settings=recipe.fisher, device=device, on_progress=report)


def _is_whole(path: Path) -> bool:
    """Whether the cache has this file, undamaged as far as its header tells; a damaged one is removed."""
    try:
        with TensorFiles([path]) if path.is_file() else nullcontext() as found:
            return found is not None
    except CheckpointError:
        path.unlink(missing_ok=True)
        return False


def _write(
    folder: Path, recipe: Recipe, opened: Opened, merge: FileMerge, model: nn.Module, report: OnProgress
) -> None:
    first = opened.checkpoints[0]
    merge.write(folder, report)
    keeps = recipe.heads == "keep"
    _write_config(first.folder, folder, type(model.base_model).__name__ if keeps else first.architecture)
    own = _task_folders(recipe, opened)
    for name, index in own.items():
        checkpoint = opened.checkpoints[index]
        (folder / name).mkdir()
        exchange_body(checkpoint.folder, folder, folder / name, on_progress=report)
        _write_config(checkpoint.folder, folder / name, checkpoint.architecture)
    write_papers(folder, recipe, {}, card_text(recipe.pinned(), opened.checkpoints, opened.names, folders=list(own)))


def _task_folders(recipe: Recipe, opened: Opened) -> dict[str, int]:
    keeps = recipe.heads == "keep"
    return task_folders(opened.checkpoints[0], opened.tasks, opened.names) if keeps else {}


def _size_bytes(recipe: Recipe, opened: Opened, merge: FileMerge) -> int:
    owners = [opened.checkpoints[index] for index in _task_folders(recipe, opened).values()]
    return merge.size_bytes + sum(path.stat().st_size for owner in owners for path in weight_files(owner.folder))


def _write_config(source: Path, folder: Path, architecture: str) -> None:
    content = json.loads((source / "config.json").read_text(encoding="utf-8")) | {"architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    copy_companions(source, folder)
