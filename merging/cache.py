"""Fishers on disk, each under a name made of everything that decides it."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError

from merging.cache_space import is_entry, make_room, mark_used
from merging.errors import CacheError, FisherError
from merging.leftovers import held_folder

# Raise it whenever estimated numbers change; CHANGELOG lists it under Numerics.
FISHER_VERSION = 2


class FisherKey(NamedTuple):
    """Everything that decides a Fisher: content hashes of checkpoint and task, split, rows, estimator, device.

    The device is part of it so that a recipe gives the same bits on the same device, whoever filled the cache.
    """

    checkpoint: str
    task: str
    split: str
    examples: int | None
    labels: str
    seed: int
    device: str

    def digest(self, part: str = "") -> str:
        """The hexadecimal name of this Fisher, or of a `part` that lies beside it, 40 digits."""
        about = {**self._asdict(), "version": FISHER_VERSION, **({"part": part} if part else {})}
        content = json.dumps(about, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:40]


def cache_folder() -> Path:
    """Where Fishers are kept: `$FISHER_CACHE_DIR`, else the user's cache folder."""
    chosen = os.environ.get("FISHER_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "fisher-merge-studio" / "fishers"


def entry_path(key: FisherKey, part: str = "") -> Path:
    """The file of a Fisher, or of a part beside it, whether or not it exists."""
    return cache_folder() / f"{key.digest(part)}.safetensors"


def state_path(key: FisherKey, part: str = "") -> Path:
    """The file of an estimate (one that makes such a part, too) that has not finished, whether or not it exists."""
    return cache_folder() / f"{key.digest(part)}.state"


def require_writable() -> None:
    """Fails before costly work, not after it; and deletes what is over the limit, or left by killed processes.

    Raises: CacheError if nothing can be written into the cache folder, or if its limit is no size.
    """
    folder = cache_folder()
    make_room(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as probe:
            probe.write(b"0" * 4096)
            probe.flush()
    except OSError as problem:
        raise _unwritable(folder, problem) from problem


@contextmanager
def estimating(key: FisherKey, part: str = "") -> Iterator[Path]:
    """The file for the state of an unfinished estimate, which no other process deletes inside.

    Raises: CacheError if nothing can be written into the cache folder.
    """
    folder = cache_folder()
    with ExitStack() as holding:
        with _reported(folder):
            folder.mkdir(parents=True, exist_ok=True)
            holding.enter_context(held_folder(folder, f".estimating-{key.digest(part)}-"))
        yield state_path(key, part)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Calls `write` with a temporary file and renames it: `path` is whole or not there.

    A new entry makes others go, the least recently used first, where the cache grows over its limit.

    Raises: CacheError; the temporary file is gone and an earlier `path` is as it was.
    """
    with _reported(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A folder, since safetensors writes into another file beside the one it is told to write.
        with held_folder(path.parent, ".writing-") as temporary:
            write(temporary / path.name)
            os.replace(temporary / path.name, path)
    if is_entry(path):
        make_room(path.parent, keep=path)


def read_fisher(key: FisherKey, load: Callable[[Path], object], part: str = "") -> object | None:
    """What `load` makes of the cached file; None where there is none, or where it is damaged (it is removed)."""
    path = entry_path(key, part)
    try:
        before = path.stat()
    except OSError:
        return None
    mark_used(path)
    try:
        return load(path)
    except FisherError as problem:
        # One that cannot be read at the moment, or that another process deleted or wrote anew, is not damaged.
        if not isinstance(problem.__cause__, OSError):
            with suppress(OSError):
                now = path.stat()
                if (now.st_ino, now.st_size) == (before.st_ino, before.st_size):
                    path.unlink()
        return None
    except RuntimeError:  # of torch, where the file went between safetensors' looking and torch's opening
        if path.exists():
            raise
        return None


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    # safetensors reports a full disk as its own error, which is not an OSError.
    except (OSError, SafetensorError) as problem:
        raise _unwritable(folder, problem) from problem


def _unwritable(folder: Path, problem: Exception) -> CacheError:
    reason = getattr(problem, "strerror", None) or str(problem)
    return CacheError(
        f"The Fisher cache cannot be written: expected a folder with free space at \"{folder}\", got '{reason}'. "
        "Free some space, or set FISHER_CACHE_DIR to a folder that you can write to."
    )
