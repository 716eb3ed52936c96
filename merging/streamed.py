"""A recipe carried out from file to file: no model is in memory but while its Fisher is estimated.

Then it is alone there, beside the CLIP that lends a vision tower its words.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from merging import cache
from merging.cache_space import mark_used
from merging.checkpoints import Checkpoint, open_checkpoint
from merging.chunks import Renamed
from merging.devices import resolve_device
from merging.errors import CheckpointError
from merging.estimates import fisher_key, fisher_of
from merging.export import copy_companions, task_folders, write_papers
from merging.families import body_config, open_models
from merging.folders import replace_folder, require_exportable, require_space
from merging.headers import weight_files
from merging.leftovers import held
from merging.model_card import card_text
from merging.opened import Opened, open_recipe
from merging.pipeline import timed
from merging.preflight import unequal_heads
from merging.recipe import Recipe
from merging.rules import RULES
from merging.stored_names import Layout
from merging.streaming import FileMerge, exchange_body
from merging.targets import COUNTER
from merging.tasks import Task
from merging.tensor_files import TensorFiles
from merging.weights import require_plain

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

    Raises: MergingError.
    """
    report = on_progress or (lambda fraction, text: None)
    folder = Path(folder).expanduser()
    require_exportable(folder)
    require_plain(recipe.rule, scale=recipe.settings.scale, layer_weights=recipe.layer_weights)
    timings: dict[str, float] = {}
    with timed(timings, "open"):
        opened = open_recipe(recipe, report)
        labels = [checkpoint.label_names for checkpoint in opened.checkpoints]
        if recipe.heads == "merge" and len(set(labels)) > 1:
            raise unequal_heads(labels)
        places = _places(recipe, opened.checkpoints)
    with ExitStack() as files:
        with timed(timings, "fisher"):
            fishers = _fisher_files(recipe, opened, report, files) if RULES[recipe.rule].needs_fisher else None
        with timed(timings, "merge"):
            settings = {name: getattr(recipe.fisher, name) for name in ("normalise", "zero_rule")}
            settings |= {"floor": float(recipe.fisher.floor), "weights": recipe.weights}
            settings |= _sources(places, fishers, files)
            merge = files.enter_context(FileMerge(rule=recipe.rule, **settings))
            require_space(folder, _size_bytes(recipe, opened, merge))
            replace_folder(folder, lambda temporary: _write(temporary, recipe, opened, merge, places, report))
    return Streamed(folder, opened.names, timings)


class _Places(NamedTuple):
    """Where the merged tensors lie: `written` are their names by those in the output, which are the first checkpoint's.

    `models` and `base` are folders with the names by those in their own files.
    """

    layout: Layout
    written: Mapping[str, str]
    models: list[tuple[Path, Mapping[str, str]]]
    base: tuple[Path, Mapping[str, str]] | None


def _places(recipe: Recipe, checkpoints: list[Checkpoint]) -> _Places:
    """Raises: StructureError if a checkpoint or the base lacks what is merged."""
    layout = Layout(checkpoints[0], keeps_heads=recipe.heads == "keep")
    models = [(checkpoint.folder, layout.names(checkpoint)) for checkpoint in checkpoints]
    base = None
    if RULES[recipe.rule].needs_fisher and recipe.fisher.zero_rule == "base" and recipe.base:
        opened = open_checkpoint(recipe.base, is_base=True)
        base = (opened.folder, layout.names(opened))
    # Of parameters that are one, transformers needs one.
    written = {stored: name for name, stored in _turned(models[0][1]).items()}
    return _Places(layout, written, models, base)


def _sources(places: _Places, fishers: list[Path] | None, files: ExitStack) -> dict[str, object]:
    """The settings of `FileMerge` that say what is read: every tensor by the name that it has in the output."""

    def read(folder: Path, names: Mapping[str, str]) -> Renamed:
        return Renamed(files.enter_context(TensorFiles(weight_files(folder))), _beside(places.written, names))

    buffers = {stored for stored, name in places.written.items() if name in places.layout.buffers}
    counters = {stored for stored in buffers if stored.split(".")[-1] == COUNTER}
    first, *others = places.models
    opened = [files.enter_context(TensorFiles([path])) for path in fishers or ()]
    return {
        "sources": [first[0], *(read(*other) for other in others)],
        "fishers": [Renamed(fisher, places.written) for fisher in opened] or None,
        "base": places.base and read(*places.base),
        "averaged": buffers - counters,
        "copied": counters,
        "left_out": lambda stored: stored not in places.written,
    }


def _beside(names: Mapping[str, str], others: Mapping[str, str]) -> dict[str, str]:
    """What each tensor of some files is called in other files."""
    own = _turned(others)
    return {stored: own[name] for stored, name in names.items() if name in own}


def _turned(names: Mapping[str, str]) -> dict[str, str]:
    return {name: stored for stored, name in names.items()}


def _fisher_files(recipe: Recipe, opened: Opened, report: OnProgress, files: ExitStack) -> list[Path]:
    """The cache's files, held in `files`; what is missing is estimated with one model in memory at a time."""
    device, count = resolve_device(recipe.device), len(opened.names)
    found = []
    for index, (checkpoint, task) in enumerate(zip(opened.checkpoints, opened.own, strict=True)):
        path = cache.entry_path(fisher_key(checkpoint, task, recipe.fisher, device))
        if not _is_whole(path):

            def tell(fraction: float, text: str, index: int = index) -> None:
                report((index + fraction) / count, f"Fisher of {opened.names[index]} ({index + 1} of {count}): {text}")

            _estimate(checkpoint, task, recipe, device, tell)
            if not path.is_file():  # the device's memory ran out
                path = cache.entry_path(fisher_key(checkpoint, task, recipe.fisher, "cpu"))
        # The Fishers of the others must not push it out of the cache.
        files.enter_context(held(path))
        mark_used(path)
        found.append(path)
    return found


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


def _write(folder: Path, recipe: Recipe, opened: Opened, merge: FileMerge, places: _Places, report: OnProgress) -> None:
    first, layout = opened.checkpoints[0], places.layout
    merge.write(folder, report)
    config = {**body_config(first), "model_type": layout.model_type, "architectures": [layout.architecture]}
    _write_companions(first, config, folder)
    own = _task_folders(recipe, opened)
    with TensorFiles(weight_files(folder)) as body:
        for name, index in own.items():
            checkpoint, (_, names) = opened.checkpoints[index], places.models[index]
            (folder / name).mkdir()
            merged = Renamed(body, _beside(names, places.written))
            exchange_body(checkpoint.folder, merged, folder / name, on_progress=report)
            _write_companions(checkpoint, checkpoint.config, folder / name)
    write_papers(folder, recipe, {}, card_text(recipe.pinned(), opened.checkpoints, opened.names, folders=list(own)))


def _task_folders(recipe: Recipe, opened: Opened) -> dict[str, int]:
    keeps = recipe.heads == "keep"
    return task_folders(opened.checkpoints[0], opened.tasks, opened.names) if keeps else {}


def _size_bytes(recipe: Recipe, opened: Opened, merge: FileMerge) -> int:
    owners = [opened.checkpoints[index] for index in _task_folders(recipe, opened).values()]
    return merge.size_bytes + sum(path.stat().st_size for owner in owners for path in weight_files(owner.folder))


def _write_companions(checkpoint: Checkpoint, config: Mapping[str, object], folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    copy_companions(checkpoint.processor_folder, folder)
