"""Folders that are written whole or not at all."""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from merging.errors import ExportError

# A folder that holds all of these is an earlier export; a folder with somebody's recipe.yaml is not.
MARKERS = ("recipe.yaml", "scores.json", "config.json")
SPARE_BYTES = 1 << 20  # for configuration, card and directories
# Of Linux's renameat2: paths are meant from here, and both exist.
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def require_exportable(folder: str | Path) -> None:
    """Raises: ExportError if `folder` exists and is neither empty nor an earlier export."""
    folder = Path(folder).expanduser()
    if folder.is_file():
        raise ExportError(f'"{folder}" cannot be written: expected a folder, got a file. Choose another place.')
    if folder.is_dir() and any(folder.iterdir()) and not all((folder / name).is_file() for name in MARKERS):
        raise ExportError(
            f'"{folder}" cannot be written: expected a new or empty folder, or an earlier export, got a folder with '
            "other files. Choose another place; nothing was changed."
        )


def require_space(folder: Path, size_bytes: int) -> None:
    """Raises: ExportError unless the disk that `folder` lies or will lie on has room for so much."""
    there = next((parent for parent in [folder, *folder.parents] if parent.is_dir()), Path("."))
    free = shutil.disk_usage(there).free
    if free < size_bytes + SPARE_BYTES:
        raise ExportError(
            f'"{folder}" cannot be written: expected {(size_bytes + SPARE_BYTES) / 1e6:.0f} MB of free space, got '
            f"{free / 1e6:.0f} MB. Choose another place or free some space; nothing was written."
        )


def replace_folder(folder: Path, write: Callable[[Path], object]) -> Path:
    """Has a folder written beside `folder`, then swaps: whatever fails, what was there stays.

    Raises: ExportError if it cannot be written.
    """
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".exporting-"))
        write(temporary)
        temporary.chmod(0o755)
        _reach_the_disk(temporary)
        _swap(temporary, folder)
        _synchronise(folder.parent)
    # safetensors reports a full disk as its own error, which is not an OSError.
    except (OSError, SafetensorError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise ExportError(
            f'"{folder}" cannot be written: expected a folder with free space, got "{reason}". '
            "Choose another place or free some space; nothing was changed."
        ) from problem
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _swap(temporary: Path, folder: Path) -> None:
    """`temporary` takes the place of `folder`, in one step where the system has one; else a kill could fall between two."""
    if not folder.is_dir():
        temporary.rename(folder)
        return
    if _exchange(temporary, folder):
        return  # what was there is deleted as temporary
    old = temporary.with_name(f"{temporary.name}-old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Two names trade places, which Linux does in one step and Python has no call for; whether it was done."""
    try:
        rename = ctypes.CDLL(None).renameat2
        return rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0
    except (AttributeError, OSError, TypeError):
        return False


def _reach_the_disk(folder: Path) -> None:
    """After a power cut the new name must not stand over empty files."""
    for path in [*folder.rglob("*"), folder]:
        _synchronise(path)


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
