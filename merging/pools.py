"""Pools: checkpoints with their tasks and their base, ready to merge; embedded, in a folder, or on the Hub."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from merging.documents import read_text, read_yaml, reason
from merging.errors import PoolError, nearest, quoted, require_choice
from merging.references import is_file, is_folder, local_path
from merging.zoo import ZOO_FOLDER
from merging.zoo import names as zoo_names

# One file per pool whose checkpoints lie on the Hub: the systems that papers report on.
HUB_FOLDER = Path(__file__).parent / "presets"


@dataclass(frozen=True)
class PoolModel:
    """A model of a pool: references of its checkpoint and its own task, as a recipe writes them."""

    name: str
    title: str
    checkpoint: str
    task: str | Mapping[str, object]


@dataclass(frozen=True)
class Published:
    """What others measured with a preset: accuracy in % by method, the mean over the tasks or that of one `task`."""

    source: str
    preset: str
    mean: Mapping[str, float]
    task: str | None = None


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
    """Checkpoints that were fine-tuned from one base, with their tasks and presets.

    A pool of the Hub has no files here: its `tasks` name datasets.
    """

    name: str
    title: str
    description: str
    folder: Path = field(repr=False)
    base: str | None
    models: tuple[PoolModel, ...]
    presets: tuple[Preset, ...]
    tasks: Mapping[str, Mapping[str, object]] = field(default_factory=dict, repr=False)
    published: Published | None = None

    def model(self, name: str) -> PoolModel:
        """A model by name. Raises: PoolError, which offers the nearest match."""
        by_name = {model.name: model for model in self.models}
        return by_name[require_choice("model", name, by_name, error=PoolError)]

    def preset(self, name: str) -> Preset:
        """A preset by name. Raises: PoolError, which offers the nearest match."""
        by_name = {preset.name: preset for preset in self.presets}
        return by_name[require_choice("preset", name, by_name, error=PoolError)]

    def task_reference(self, name: str) -> str | Mapping[str, object]:
        """How a recipe names one of the pool's tasks."""
        if name in self.tasks:
            return {"name": name, **self.tasks[name]}
        return _reference(self.folder, "tasks", name)


def hub_names() -> list[str]:
    """The pools whose checkpoints and datasets lie on the Hub by name, sorted: every YAML file in `presets`."""
    return sorted(path.stem for path in HUB_FOLDER.glob("*.yaml"))


def open_pool(name: str) -> Pool:
    """Opens an embedded pool or one of the Hub by name, or a folder that holds a `pool.yaml`; reads no weights.

    Raises: PoolError if there is no such pool, or if one of its files is missing.
    """
    folder = ZOO_FOLDER / name if name in zoo_names() else local_path(str(name))
    file = HUB_FOLDER / f"{name}.yaml" if name in hub_names() else folder / "pool.yaml"
    if not is_file(file):
        got = "a folder without it" if is_folder(folder) else "no folder"
        known = [*zoo_names(), *hub_names()]
        raise PoolError(
            f'There is no pool "{name!s:.160}": expected the name of an embedded pool or a preset, or a folder with a pool.yaml, '
            f"got {got}. There are {quoted(known, 20)}. {nearest(name, known)}"
        )
    try:
        content = read_yaml(read_text(file))
        pool = _from_mapping(folder, content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise PoolError(
            f'Pool "{name}" is damaged: expected "models" (name, task) and "presets" (name, models) in pool.yaml, '
            f"got a problem with {reason(problem)!r}. Compare it with an embedded pool's."
        ) from problem
    if not pool.tasks:
        _check_files(pool, content)
    _check_presets(pool)
    return pool


def published_for(checkpoints: Collection[str]) -> Published | None:
    """What others measured with these very checkpoints, where they are a preset of the Hub."""
    chosen = {checkpoint.partition("@")[0] for checkpoint in checkpoints}
    for pool in _hub_pools():
        if (
            pool.published
            and {pool.model(name).checkpoint for name in pool.preset(pool.published.preset).models} == chosen
        ):
            return pool.published
    return None


@lru_cache(maxsize=1)
def _hub_pools() -> tuple[Pool, ...]:
    return tuple(open_pool(name) for name in hub_names())


def _from_mapping(folder: Path, content: Mapping) -> Pool:
    tasks = {str(name): dict(about) for name, about in (content.get("tasks") or {}).items()}
    models = tuple(
        PoolModel(
            name=str(entry["name"]),
            title=str(entry.get("title", entry["name"])),
            checkpoint=str(entry.get("checkpoint") or _reference(folder, "checkpoints", str(entry["name"]))),
            task={"name": entry["task"], **tasks[entry["task"]]}
            if tasks
            else _reference(folder, "tasks", str(entry["task"])),
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
    base, published = content.get("base"), content.get("published")
    if base and not tasks:
        base = _reference(folder, "checkpoints", str(base))
    return Pool(
        name=str(content.get("name", folder.name)),
        title=str(content.get("title", folder.name)),
        description=str(content.get("description", "")),
        folder=folder,
        base=base or None,
        models=models,
        presets=presets,
        tasks=tasks,
        published=Published(**published) if published else None,
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


def _check_presets(pool: Pool) -> None:
    known = {model.name for model in pool.models}
    for preset in pool.presets:
        for model in preset.models:
            require_choice(f'model in preset "{preset.name}"', model, known, error=PoolError)
