"""Where references of recipes lead: the embedded pools, the names that they are shown by, and what to offer instead."""

from pathlib import Path

from merging.errors import MergingError, nearest, require_choice
from merging.zoo import ZOO_FOLDER
from merging.zoo import names as zoo_names


def short_name(reference: str) -> str:
    """What a checkpoint is called beside others: the last part of its reference, without the revision."""
    return reference.split("@")[0].rstrip("/").split("/")[-1]


def nearest_folder(folder: Path) -> str:
    """What to do about a folder that does not exist: its sibling with the most similar name."""
    siblings = [path.name for path in _beside(folder) if is_folder(path)]
    return nearest(folder.name, siblings) if siblings else "Check the path."


def nearest_path(path: Path) -> str:
    """What to do about a path that leads nowhere: the file or folder beside it with the most similar name."""
    siblings = [one.name for one in _beside(path)]
    if not is_folder(path.parent) and len(path.parts) == 2 and not path.is_absolute():
        return f"Check the path; a dataset of the Hub is {{dataset: {path}, splits: {{fisher: train, test: test}}}}."
    return nearest(path.name, siblings) if siblings else "Check the path."


def local_path(reference: str) -> Path:
    """A reference read as a path; "~" of nobody here stays as it is."""
    try:
        return Path(reference).expanduser()
    except RuntimeError:
        return Path(reference)


def is_folder(path: str | Path) -> bool:
    """Whether there is a folder; not where the path is too long, holds what no path can, or leads where none may look."""
    try:
        return local_path(str(path)).is_dir()
    except (OSError, ValueError):
        return False


def is_file(path: str | Path) -> bool:
    """The same for a file."""
    try:
        return local_path(str(path)).is_file()
    except (OSError, ValueError):
        return False


def zoo_entry(pool: str, kind: str, name: str, error: type[MergingError]) -> Path:
    """The folder of an embedded checkpoint or task; `kind` is `checkpoints` or `tasks`.

    Raises: `error`, which offers the nearest match.
    """
    require_choice("pool", pool, zoo_names(), error=error)
    folder = ZOO_FOLDER / pool / kind
    there = sorted(path.name for path in folder.iterdir() if path.is_dir())
    require_choice(kind.removesuffix("s"), name, there, error=error)
    return folder / name


def unique_names(names: list[str]) -> list[str]:
    """The names, with `-2`, `-3`, … after those that occur again."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return result


def _beside(path: Path) -> list[Path]:
    """What lies beside a path, as far as one may look."""
    try:
        return list(path.parent.iterdir())
    except (OSError, ValueError):
        return []
