"""The room that downloads may take on a server for strangers: what was used longest ago goes first.

Models lie in the Hub's cache, repository by repository, and the rows of datasets in that of `datasets`, folder by folder.
"""

import shutil
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from merging.leftovers import changed_s

# What was used so lately may be in somebody's hands.
IDLE_S = 3600.0


@dataclass(frozen=True)
class Download:
    """A repository or a dataset in a cache."""

    path: Path
    size_bytes: int
    used_s: float
    remove: Callable[[], None]


def evict_downloads(limit_bytes: int, *, in_use: Collection[Path] = (), idle_s: float = IDLE_S) -> int:
    """Deletes whole repositories and datasets, the least recently used first, until `limit_bytes` are not exceeded.

    What holds one of the folders `in_use`, or was used in the last `idle_s` seconds, stays. Returns the bytes that are free now.
    """
    found = sorted([*_repositories(), *_datasets()], key=lambda download: download.used_s)
    total, freed, now = sum(download.size_bytes for download in found), 0, time.time()
    held = [folder.resolve() for folder in in_use]
    for download in found:
        if total - freed <= limit_bytes:
            break
        is_held = any(folder.is_relative_to(download.path.resolve()) for folder in held)
        if is_held or now - download.used_s < idle_s:
            continue
        with suppress(OSError):
            download.remove()
            freed += download.size_bytes
    return freed


def touched(snapshot: Path) -> Path:
    """The same, its repository noted as used now: disks seldom write down when a file was read."""
    with suppress(OSError):
        snapshot.parent.parent.touch()
    return snapshot


def _repositories() -> list[Download]:
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        info = scan_cache_dir(constants.HF_HUB_CACHE)
    except (CacheNotFound, OSError, ValueError):
        return []

    def removal(hashes: list[str]) -> Callable[[], None]:
        return lambda: info.delete_revisions(*hashes).execute()

    return [
        Download(
            one.repo_path,
            one.size_on_disk,
            max(one.last_accessed, one.last_modified, one.repo_path.stat().st_mtime),
            removal([revision.commit_hash for revision in one.revisions]),
        )
        for one in info.repos
    ]


def _datasets() -> list[Download]:
    from datasets import config

    with suppress(OSError):
        folders = [path for path in Path(config.HF_DATASETS_CACHE).iterdir() if path.is_dir() and not path.is_symlink()]
        return [_dataset(path) for path in folders]
    return []


def _dataset(folder: Path) -> Download:
    files = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    used_s = max([changed_s(folder) or 0.0, *(max(file.st_mtime, file.st_atime) for file in files)])
    return Download(folder, sum(file.st_size for file in files), used_s, lambda: shutil.rmtree(folder))
