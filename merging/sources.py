"""Where a task's rows come from: a file per split, one file, folders of images, or the Hub. `datasets` reads them all."""

import glob
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from merging.dataset_library import library, no_room
from merging.errors import TaskError, quoted, shown
from merging.hub_datasets import dataset_stamp, load_rows
from merging.own_data import require_own_pictures
from merging.shares import cut
from merging.upload_references import uploads_folder

SPLITS = ("fisher", "validation", "test")
# What datasets calls a file's format, and how it is read. A cell of a CSV file that says NA or null is a text.
_TEXT_CELLS = {"keep_default_na": False}
FORMATS = {
    ".parquet": ("parquet", {}),
    ".jsonl": ("json", {}),
    ".json": ("json", {}),
    ".csv": ("csv", _TEXT_CELLS),
    ".tsv": ("csv", {**_TEXT_CELLS, "sep": "\t"}),
}
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
SPLIT_FOLDERS = {
    **dict.fromkeys(("fisher", "train", "training"), "fisher"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# Of one file or folder without splits; and of a training split without a validation split.
SHARES = {"fisher": 0.6, "validation": 0.2, "test": 0.2}
VALIDATION_SHARES = {"fisher": 0.8, "validation": 0.2}


@dataclass(frozen=True, eq=False)
class Source:
    """Rows in parts, of which a part may be cut into several splits by seed.

    `parts` says for each split which stored part holds it; `shares` how a part that holds several is divided.
    """

    parts: Mapping[str, str]
    shares: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    @property
    def names(self) -> str:
        """What the errors call it."""
        raise NotImplementedError

    def stored(self, split: str):
        """The whole stored part that holds a split, as a `datasets.Dataset`. Raises: TaskError if it cannot be read."""
        raise NotImplementedError

    def digest(self, split: str) -> str:
        """A hash of the stored part's content."""
        raise NotImplementedError

    def stamp(self) -> tuple[object, ...]:
        """Changes when stored rows do, as far as that shows without reading them."""
        raise NotImplementedError

    def select(self, split: str, rows, inputs: Sequence[str] | None):
        """The split's rows of its stored part; rows that are equal in `inputs` come into one split."""
        if not self.is_cut(split):
            return rows
        shares = {name: share for name, share in self.shares.items() if self.parts.get(name) == self.parts[split]}
        return rows.select(cut(rows, tuple(shares.items()), seed=self.seed, inputs=inputs, what=self.names)[split])

    def is_cut(self, split: str) -> bool:
        """Whether the split shares its stored part with another."""
        return list(self.parts.values()).count(self.parts[split]) > 1


@dataclass(frozen=True, eq=False)
class Files(Source):
    """One local file per part."""

    files: Mapping[str, Path] = field(default_factory=dict)

    @property
    def names(self) -> str:
        return quoted({path.name for path in self.files.values()})

    def stored(self, split: str):
        path = self.files[self.parts[split]]
        return _read_file(path, _modified_ns(path))

    def digest(self, split: str) -> str:
        return hashlib.sha256(self.files[self.parts[split]].read_bytes()).hexdigest()

    def stamp(self) -> tuple[object, ...]:
        return tuple((path, _modified_ns(path)) for path in self.files.values())


@dataclass(frozen=True, eq=False)
class ImageFolders(Source):
    """A folder of class folders, or of split folders that hold class folders. A part is a split folder's name, or "."."""

    folder: Path = Path()

    @property
    def names(self) -> str:
        return f'"{self.folder.name}"'

    def stored(self, split: str):
        return _read_images(self.folder, tuple(sorted(set(self.parts.values()))), self.stamp())[self.parts[split]]

    def digest(self, split: str) -> str:
        return _hash_folder(self.folder / self.parts[split], self.stamp())

    def stamp(self) -> tuple[object, ...]:
        return tuple((path, _modified_ns(path)) for path in image_files(self.folder))


@dataclass(frozen=True, eq=False)
class HubDataset(Source):
    """A dataset on the Hub, or in a folder that `datasets` reads; a part is the name of one of its splits."""

    dataset: str = ""
    config: str | None = None
    revision: str | None = None

    @property
    def names(self) -> str:
        return f'"{self.dataset}"'

    def stored(self, split: str):
        return load_rows(self.dataset, self.config, self.parts[split], self.revision)

    def digest(self, split: str) -> str:
        return self.stored(split)._fingerprint

    def stamp(self) -> tuple[object, ...]:
        return (self.dataset, self.config, self.revision, *dataset_stamp(self.dataset))


def find_folder_source(folder: Path, *, shares: Mapping[str, float] | None = None, seed: int = 0) -> Source | None:
    """How a folder holds a task: one file per split, class folders of images, or neither (None)."""
    files = {split: path for split in SPLITS for suffix in FORMATS if (path := folder / f"{split}{suffix}").is_file()}
    if files:
        return Files(parts={split: split for split in files}, files=files)
    inner = _visible_folders(folder)
    # A zip often holds everything in one folder of its own.
    while len(inner) == 1 and not image_files(folder, deep=False) and _visible_folders(inner[0]):
        folder, inner = inner[0], _visible_folders(inner[0])
    if not inner or not any(image_files(path) for path in inner):
        return None
    if all(path.name.lower() in SPLIT_FOLDERS for path in inner):
        parts = {SPLIT_FOLDERS[path.name.lower()]: path.name for path in inner}
        if "fisher" in parts and "validation" not in parts:
            parts["validation"] = parts["fisher"]
        return ImageFolders(parts=parts, shares=VALIDATION_SHARES, seed=seed, folder=folder)
    shares = dict(shares or SHARES)
    return ImageFolders(parts=dict.fromkeys(shares, "."), shares=shares, seed=seed, folder=folder)


def image_files(folder: Path, *, deep: bool = True) -> list[Path]:
    """The pictures of a folder, sorted; hidden files are none."""
    found = folder.rglob("*") if deep else folder.glob("*")
    return sorted(path for path in found if path.suffix.lower() in IMAGES and not path.name.startswith("."))


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError as problem:
        raise TaskError(f'"{path.name}" cannot be read: expected a file, got "{problem.strerror}".') from problem


@lru_cache(maxsize=64)
def _read_file(path: Path, modified_ns: int):
    form, settings = FORMATS[path.suffix.lower()]
    if form == "json":
        _require_objects(path)
    try:
        settings = {**settings, "cache_dir": _rows_folder(path)}
        rows = library().load_dataset(form, data_files=glob.escape(str(path)), split="train", **settings)
        return require_own_pictures(rows, f'"{path.name}"')
    except TaskError:
        raise
    # datasets passes on whatever pyarrow, pandas or json raise.
    except Exception as problem:
        if path.stat().st_size == 0 or "corresponds to no data" in str(problem):
            raise TaskError(f'"{path.name}" has no rows: expected at least one, got 0. Add data.') from problem
        reason = str(problem.__cause__ or problem).strip()[:200]
        told = no_room(problem) or f"expected {path.suffix} data, got {reason!r}. Mend the file."
        raise TaskError(f'"{path.name}" cannot be read: {told}') from problem


def _rows_folder(path: Path) -> str | None:
    """Where `datasets` keeps its copy of the rows: an upload's beside it, so that both are deleted; else in its cache."""
    uploads = uploads_folder()
    return str(path.parent / ".rows") if uploads and path.is_relative_to(uploads) else None


def _require_objects(path: Path) -> None:
    """Every line of a .jsonl file is an object, a .json file one or a list: at a null in its place pyarrow 26 crashes."""
    starts = (b"{",) if path.suffix.lower() == ".jsonl" else (b"{", b"[")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if (text := line.strip(b" \t\r\n\xef\xbb\xbf")) and not text.startswith(starts):
                raise TaskError(
                    f'"{path.name}" cannot be read: expected an object in braces for each row, got {shown(text[:40])} in line '
                    f"{number}. Mend the file."
                )
            if text and starts[1:]:
                return  # what follows may be in any layout


@lru_cache(maxsize=16)
def _read_images(folder: Path, parts: tuple[str, ...], stamp: tuple[object, ...]):
    # datasets wants split names without dots; all parts are read at once, so that they share one list of classes.
    patterns = {f"part{number}": f"{glob.escape(str(folder / part))}/**" for number, part in enumerate(parts)}
    try:
        found = library().load_dataset(
            "imagefolder", data_files=patterns, drop_labels=False, drop_metadata=True, cache_dir=_rows_folder(folder)
        )
    except Exception as problem:
        told = no_room(problem) or (
            f"expected class folders with pictures, got {str(problem).strip()[:200]!r}. "
            "Put the pictures of each class into a folder of its name."
        )
        raise TaskError(f'"{folder.name}" cannot be read: {told}') from problem
    return {part: found[f"part{number}"] for number, part in enumerate(parts)}


@lru_cache(maxsize=16)
def _hash_folder(folder: Path, stamp: tuple[object, ...]) -> str:
    digest = hashlib.sha256()
    for path in image_files(folder):
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
