"""Which jobs are under way, on disk, so that a server that was restarted can say which ones were lost.

Each process writes a file of its own beside the Fishers, and holds a lock on it as long as it lives: the next process
takes over the files that nobody holds. Of a job's id only a digest is written, which stops nothing.
"""

import hashlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from components import logs
from merging.cache import write_atomically
from merging.errors import MergingError

NAME = "jobs-{}.json"
KEPT_LOST = 256
KEPT_LOST_S = 24 * 3600.0
LARGEST_BYTES = 1_000_000
LOOK_AGAIN_S = 10.0


class Journal:
    """The active jobs of this process, and the lost ones of earlier ones; silent until it is opened.

    Where the disk is full or closed it is kept in memory only, and the log says so.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._path: Path | None = None
        self._held: FileLock | None = None
        self._active: dict[str, dict[str, object]] = {}
        self._lost: dict[str, dict[str, object]] = {}
        self._writable = True
        self._looked_s = 0.0

    def open(self, folder: Path) -> int:
        """Begins a file in this folder and takes over what dead processes left; returns how many jobs were lost."""
        with self._lock:
            path = folder / NAME.format(uuid.uuid4().hex[:12])
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._held = _taken(path)
            except OSError as problem:
                logs.event("journal_closed", logging.WARNING, problem=problem)
                return 0
            self._path = path
            self._write()
            self._take_over()
            return len(self._lost)

    def add(self, job_id: str, kind: str) -> None:
        """A job is under way."""
        with self._lock:
            self._active[_digest(job_id)] = {"kind": kind, "at": time.time()}
            self._write()

    def remove(self, job_ids: Iterable[str]) -> None:
        """Jobs have ended."""
        with self._lock:
            found = [self._active.pop(_digest(job_id), None) for job_id in job_ids]
            if any(found):
                self._write()

    def lost(self, job_id: str) -> str | None:
        """The kind of a job that another process could not finish; None where it is none of those."""
        digest = _digest(job_id)
        with self._lock:
            # The one before may have lived on for a while beside this one.
            if digest not in self._lost and time.monotonic() - self._looked_s > LOOK_AGAIN_S:
                self._take_over()
            entry = self._lost.get(digest)
            return None if entry is None else str(entry["kind"])

    def _take_over(self) -> None:
        self._looked_s = time.monotonic()
        if self._path is None:
            return
        try:
            left = [other for other in sorted(self._path.parent.glob(NAME.format("*"))) if other != self._path]
        except OSError:  # the folder is closed, or gone
            return
        taken = [(other, lock) for other in left if (lock := _free(other)) is not None]
        if not taken:
            return
        for other, _ in taken:
            self._lost |= _read(other)
        self._forget_old()
        # Unwritten, the next process finds them where they are.
        written = self._write()
        for other, lock in taken:
            _release(other, lock, remove=written)

    def _write(self) -> bool:
        if self._path is None:
            return False
        text = json.dumps({"active": self._active, "lost": self._lost})
        try:
            write_atomically(self._path, lambda path: path.write_text(text, encoding="utf-8"))
        except MergingError as problem:
            if self._writable:  # once, not at every job
                logs.event("journal_unwritten", logging.WARNING, problem=problem)
            self._writable = False
            return False
        self._writable = True
        return True

    def _forget_old(self) -> None:
        now = time.time()
        # A clock that was set back must not keep them for ever, nor one set forward drop those of a moment ago.
        recent = {key: one for key, one in self._lost.items() if abs(now - one["at"]) < KEPT_LOST_S}
        newest = sorted(recent, key=lambda key: recent[key]["at"])[-KEPT_LOST:]
        self._lost = {key: recent[key] for key in newest}


def _digest(job_id: str) -> str:
    return hashlib.sha256(job_id.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> dict[str, dict[str, object]]:
    """All jobs of a file; of a damaged one those that can be read."""
    try:
        if path.stat().st_size > LARGEST_BYTES:
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = [*content["lost"].items(), *content["active"].items()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        logs.event("journal_damaged", logging.WARNING)
        return {}
    return {key: {"kind": one["kind"], "at": float(one["at"])} for key, one in entries if _is_entry(one)}


def _is_entry(one: object) -> bool:
    if not isinstance(one, dict) or not isinstance(one.get("kind"), str):
        return False
    at = one.get("at")
    return isinstance(at, int | float) and not isinstance(at, bool) and abs(at) < 1e12


def _taken(path: Path) -> FileLock:
    lock = FileLock(path.with_suffix(".lock"), is_singleton=False, thread_local=False)
    lock.acquire(blocking=False)
    return lock


def _free(path: Path) -> FileLock | None:
    """The lock of another process's file where that process is dead."""
    try:
        return _taken(path)
    except (Timeout, OSError):
        return None


def _release(path: Path, lock: FileLock, *, remove: bool) -> None:
    with suppress(OSError):
        if remove:
            path.unlink(missing_ok=True)
        lock.release()
        if remove:
            path.with_suffix(".lock").unlink(missing_ok=True)


JOURNAL = Journal()
