"""Pools: checkpoints with their tasks and their base, ready to merge."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from merging.errors import PoolError, nearest, quoted, require_choice
from merging.zoo import ZOO_FOLDER
from merging.zoo import names as zoo_names


@dataclass(frozen=True)
class PoolModel:
    """A model of a pool: references of its checkpoint and its own task, as a recipe writes them."""

    name: str
    title: str
    checkpoint: str
    task: str


@dataclass(frozen=True)
class Preset:
    """A choice of models worth looking at; `evaluate` names tasks beside their own."""

    name: str
    title: str
    models: tuple[str, ...]
    heads: str = "keep"
    evaluate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Checkpoints that were fine-tuned from one base, with their tasks and presets."""

    name: str
    title: str
    description: str
    folder: Path = field(repr=False)
    base: str | None
    models: tuple[PoolModel, ...]
    presets: tuple[Preset, ...]

    def model(self, name: str) -> PoolModel:
        """A model by name. Raises: PoolError, which offers the nearest match."""
        by_name = {model.name: model for model in self.models}
        return by_name[require_choice("model", name, by_name, error=PoolError)]

    def preset(self, name: str) -> Preset:
        """A preset by name. Raises: PoolError, which offers the nearest match."""
        by_name = {preset.name: preset for preset in self.presets}
        return by_name[require_choice("preset", name, by_name, error=PoolError)]

    def task_reference(self, name: str) -> str:
        """How a recipe names one of the pool's tasks."""
        return _reference(self.folder, "tasks", name)


def open_pool(name: str) -> Pool:
    """Opens an embedded pool by name, or a folder that holds a `pool.yaml`; reads no weights.

    Raises: PoolError if there is no such pool, or if one of its files is missing.
    """
    folder = ZOO_FOLDER / name if name in zoo_names() else Path(name).expanduser()
    if not (folder / "pool.yaml").is_file():
        got = "a folder without it" if folder.is_dir() else "no folder"
        raise PoolError(
            f'There is no pool "{name}": expected the name of an embedded pool, or a folder with a pool.yaml, got {got}. '
            f"Embedded are {quoted(zoo_names())}. {nearest(name, zoo_names())}"
        )
    try:
        content = yaml.safe_load((folder / "pool.yaml").read_text(encoding="utf-8"))
        pool = _from_mapping(folder, content)
    except (yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError, AttributeError) as problem:
        raise PoolError(
            f'Pool "{name}" is damaged: expected "models" (name, task) and "presets" (name, models) in pool.yaml, '
            f"got a problem with {str(problem).splitlines()[0]!r}. Compare it with an embedded pool's."
        ) from problem
    _check_files(pool, content)
    return pool


def _from_mapping(folder: Path, content: Mapping) -> Pool:
    models = tuple(
        PoolModel(
            name=str(entry["name"]),
            title=str(entry.get("title", entry["name"])),
            checkpoint=_reference(folder, "checkpoints", str(entry["name"])),
            task=_reference(folder, "tasks", str(entry["task"])),
        )
        for entry in content["models"]
    )
    presets = tuple(
        Preset(
            name=str(entry["name"]),
            title=str(entry.get("title", entry["name"])),
            models=tuple(str(model) for model in entry["models"]),
            heads=str(entry.get("heads", "keep")),
            evaluate=tuple(str(task) for task in entry.get("evaluate") or ()),
        )
        for entry in content.get("presets") or ()
    )
    base = content.get("base")
    return Pool(
        name=str(content.get("name", folder.name)),
        title=str(content.get("title", folder.name)),
        description=str(content.get("description", "")),
        folder=folder,
        base=_reference(folder, "checkpoints", str(base)) if base else None,
        models=models,
        presets=presets,
    )


def _reference(folder: Path, kind: str, name: str) -> str:
    return f"zoo:{folder.name}/{name}" if folder.parent == ZOO_FOLDER else str(folder / kind / name)


def _check_files(pool: Pool, content: Mapping) -> None:
    """Every file that the pool speaks of is there; whether its content is sound shows when it is opened."""
    names = [str(entry["name"]) for entry in content["models"]] + (
        [str(content["base"])] if content.get("base") else []
    )
    wanted = [Path("checkpoints", name, file) for name in names for file in ("config.json", "*.safetensors")]
    tasks = {str(entry["task"]) for entry in content["models"]}
    tasks |= {task for preset in pool.presets for task in preset.evaluate}
    wanted += [Path("tasks", task) for task in sorted(tasks)]
    missing = [str(path) for path in wanted if not any(pool.folder.glob(str(path)))]
    if missing:
        raise PoolError(
            f'Pool "{pool.name}" is incomplete: expected the files that its pool.yaml names, got none for {quoted(missing)}. '
            "Restore them, or take the entries out of pool.yaml."
        )
    known = {model.name for model in pool.models}
    for preset in pool.presets:
        for model in preset.models:
            require_choice(f'model in preset "{preset.name}"', model, known, error=PoolError)
