"""The room that the cache may take: whole entries are evicted, the least recently used first.

A use is the time of an entry's last change: reading one touches it. Several processes may do all this in one folder
at once; what another one has deleted counts as evicted, and what another one has just used stays.
"""

import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from merging.errors import CacheError
from merging.leftovers import changed_s, is_held, is_leftover, remove

LIMIT_VARIABLE = "FISHER_CACHE_LIMIT"
DEFAULT_LIMIT = "10GB"
UNITS = {"": 1, "B": 1, **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}}
UNITS |= {f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)}

TEMPORARY_S = 24 * 3600.0
STATE_S = 7 * 24 * 3600.0
# A checkpoint or a picture of these may be read long after it was opened.
FOLDER_IN_USE_S = 6 * 3600.0

# Nothing else is ever deleted: the folder may be one that somebody keeps other things in.
ENTRY = re.compile(r"[0-9a-f]{40}\.safetensors|picture-[0-9a-f]{40}\.json")
STATE = re.compile(r"([0-9a-f]{40})\.state")
TEMPORARY = re.compile(r"\.(writing|probe|estimating|unpacking|merging|evicted)-[\w.-]+")
FOLDERS = {"adapters": re.compile(r"[0-9a-f]{16,64}"), "uploads": re.compile(r"[0-9a-f]{16}")}


@dataclass(frozen=True)
class Entry:
    """Something that may be evicted: a Fisher, a picture, an unfinished estimate, or a folder of files."""

    path: Path
    size_bytes: int
    used_s: float


def limit_bytes(variable: str = LIMIT_VARIABLE, default: str = DEFAULT_LIMIT) -> int:
    """What the cache may take: `$FISHER_CACHE_LIMIT`, such as 10GB, 512 MiB or a number of bytes; else 10 GB.

    Raises: CacheError if it is no size.
    """
    text = os.environ.get(variable, "").strip() or default
    found = re.fullmatch(r"(\d{1,15}(?:\.\d{1,6})?)\s*([a-zA-Z]{0,3})", text, re.ASCII)
    if not found or found[2].upper() not in UNITS:
        raise CacheError(
            f'{variable} cannot be read: expected a size such as "{default}" or a number of bytes, '
            f'got "{text:.40}". Set it anew, or leave it out.'
        )
    return int(float(found[1]) * UNITS[found[2].upper()])


def is_entry(path: Path) -> bool:
    """Whether a file of this name is a finished entry of the cache."""
    return ENTRY.fullmatch(path.name) is not None


def mark_used(path: Path) -> None:
    """The entry was read just now; where the cache cannot be written, it keeps its place."""
    with suppress(OSError):
        os.utime(path)


def make_room(folder: Path, *, keep: Path | None = None) -> None:
    """Deletes what killed processes left, then entries until all that is left keeps to the limit; `keep` stays.

    Raises: CacheError if the limit is no size.
    """
    limit = limit_bytes()
    _remove_leftovers(folder)
    entries = sorted(_entries(folder), key=lambda entry: entry.used_s)
    beside = [path for place in (folder, folder / "adapters") for path in _named(place, TEMPORARY)]
    total = sum(entry.size_bytes for entry in entries) + sum(map(_size_bytes, beside))
    for entry in entries:
        if total <= limit:
            break
        if entry.path != keep and not _is_in_use(entry) and remove(entry.path):
            total -= entry.size_bytes


def _remove_leftovers(folder: Path) -> None:
    for path in _temporaries(folder):
        if is_leftover(path, TEMPORARY_S) and remove(path) and path.parent != folder:
            with suppress(OSError):
                path.parent.rmdir()  # if nothing else is in it
    for path in _named(folder, STATE):
        if not _is_estimated(path) and is_leftover(path, STATE_S):
            remove(path)


def _entries(folder: Path) -> Iterator[Entry]:
    files = [*_named(folder, ENTRY), *_named(folder, STATE)]
    folders = [path for name, pattern in FOLDERS.items() for path in _named(folder / name, pattern)]
    for path in [*(path for path in files if path.is_file()), *(path for path in folders if path.is_dir())]:
        if (used := changed_s(path)) is not None:
            yield Entry(path, _size_bytes(path), used)


def _is_in_use(entry: Entry) -> bool:
    """Whether it is being made or read, was used since it was listed, or may still be read file by file."""
    if changed_s(entry.path) not in (entry.used_s, None) or is_held(entry.path):
        return True
    if entry.path.is_dir():
        recent = time.time() - entry.used_s < FOLDER_IN_USE_S
        return recent or any(is_held(path) for path in _named(entry.path, TEMPORARY))
    return STATE.fullmatch(entry.path.name) is not None and _is_estimated(entry.path)


def _is_estimated(state: Path) -> bool:
    """Whether a living process works on the estimate that this is the state of."""
    return any(is_held(path) for path in _named(state.parent, re.compile(rf"\.estimating-{state.stem}-.*")))


def _temporaries(folder: Path) -> list[Path]:
    uploads = _named(folder / "uploads", FOLDERS["uploads"])
    return [path for place in (folder, folder / "adapters", *uploads) for path in _named(place, TEMPORARY)]


def _named(folder: Path, pattern: re.Pattern) -> list[Path]:
    """What lies in a folder under such names, links left out; nothing where there is no such folder."""
    try:
        with os.scandir(folder) as found:
            return [folder / one.name for one in found if pattern.fullmatch(one.name) and not one.is_symlink()]
    except OSError:
        return []


def _size_bytes(path: Path) -> int:
    """A file's size, or that of all files in a folder; what vanishes meanwhile has none."""
    try:
        if not path.is_dir():
            return path.lstat().st_size
        with os.scandir(path) as found:
            return sum(_size_bytes(path / one.name) for one in found if not one.is_symlink())
    except OSError:
        return 0
