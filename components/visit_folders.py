"""What a visit leaves on disk, uploads and exports, in a folder of its own that is deleted a set time after its last use.

    ROOT/server-…/<a random name for each visit>/export-…/merged-model.zip

Each server has a folder and holds it as long as it lives; what a killed one left is deleted by the next, when its time is
over. The names tell nothing of the visits, whose ids are secret. Nothing else is ever deleted, and no link is followed.
"""

import atexit
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from merging.leftovers import held, is_held, is_leftover, remove

KEPT_S = 3600.0  # after the last use
SWEEP_S = 300.0
# Folders that one sweep deletes; the next one goes on.
AT_ONCE = 100
# Of one kind in one visit; older ones go.
KEPT_EACH = 3
SERVER = re.compile(r"server-[0-9a-f]{16}")
GONE = re.compile(r"\.evicted-\w+")  # by a server that was killed meanwhile
VISIT = re.compile(rf"[0-9a-f]{{32}}|{GONE.pattern}")


class VisitFolders:
    """The visits' folders of this server, below a root that several servers may share; safe to use from several threads."""

    def __init__(self, root: Path | None = None, *, kept_s: float = KEPT_S) -> None:
        self._chosen, self._kept_s = root, kept_s
        self._lock = threading.RLock()
        self._holding = ExitStack()
        self._root: Path | None = None
        self._server: Path | None = None
        self._pid = 0
        # Folder by visit, and when each folder was used last, by a clock that does not jump.
        self._folders: dict[str, Path] = {}
        self._used_s: dict[Path, float] = {}
        self._busy: Counter[Path] = Counter()
        self._swept_s = 0.0
        self._ended: threading.Event | None = None

    def begin(self, every_s: float = SWEEP_S) -> None:
        """Sweeps now and from time to time, in a thread that ends with the process."""
        with self._lock:
            if self._ended is None:
                self._ended = threading.Event()
                threading.Thread(target=self._keep_sweeping, args=(self._ended, every_s), daemon=True).start()

    def of(self, visit: str | None) -> Path:
        """A visit's folder, whose time begins anew; without a visit one for this use. Raises: OSError."""
        if time.monotonic() - self._swept_s > SWEEP_S:
            self.sweep()
        with self._lock:
            server = self._own_server()
            folder = self._folders.get(visit or "")
            if folder is None or folder.parent != server or not folder.is_dir():
                folder = server / secrets.token_hex(16)
                folder.mkdir(mode=0o700)
                self._folders[visit or folder.name] = folder
            self._refresh(folder)
            return folder

    def used(self, visit: str | None) -> None:
        """The time of a visit's folder begins anew, where it has one."""
        with self._lock:
            if (folder := self._folders.get(visit or "")) is not None and folder.is_dir():
                self._refresh(folder)

    @contextmanager
    def new(self, visit: str | None, kind: str) -> Iterator[Path]:
        """A new folder in a visit's, which stays unless its block fails; older ones of its kind go. Raises: OSError."""
        with self._lock:
            parent = self.of(visit)
            folder = Path(tempfile.mkdtemp(dir=parent, prefix=f"{kind}-"))
            self._busy[parent] += 1
            self._busy[folder] += 1
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            with self._lock:
                self._busy -= Counter((parent, folder))
                self._refresh(parent)
                self._remove_older(parent, kind)

    @property
    def server(self) -> Path:
        """This server's folder, in which those of the visits lie. Raises: OSError."""
        with self._lock:
            return self._own_server()

    def sweep(self) -> int:
        """Deletes folders whose time is over, at most `AT_ONCE`; returns how many."""
        with self._lock:
            self._swept_s = now = time.monotonic()
            over = [path for path, used in self._used_s.items() if now - used > self._kept_s and not self._busy[path]]
            over = over[:AT_ONCE]
            for path in over:
                del self._used_s[path]
            self._folders = {visit: path for visit, path in self._folders.items() if path in self._used_s}
        deleted = sum(map(remove, over))
        with suppress(OSError):
            deleted += self._sweep_dead(AT_ONCE - deleted)
        return deleted

    def close(self) -> None:
        """Deletes all of this server's folders: one that ends in order leaves nothing."""
        with self._lock:
            if self._ended is not None:
                self._ended.set()
            if self._server is not None and self._pid == os.getpid():  # a forked worker deletes nothing
                self._holding.close()
                remove(self._server)
            self._server = self._ended = None
            self._folders, self._used_s = {}, {}

    def _keep_sweeping(self, ended: threading.Event, every_s: float) -> None:
        while not ended.is_set():
            while self.sweep() >= AT_ONCE:
                pass
            ended.wait(every_s)

    def _sweep_dead(self, most: int) -> int:
        """Deletes what servers that live no more have left."""
        root = self._own_root()
        deleted = sum(remove(path) for path in _folders(root, GONE) if is_leftover(path, self._kept_s))
        for server in _folders(root, SERVER):
            if server == self._server or is_held(server):
                continue
            for path in _folders(server, VISIT):
                if deleted < most and is_leftover(path, self._kept_s) and remove(path):
                    deleted += 1
            if is_leftover(server, self._kept_s):
                with suppress(OSError):
                    server.rmdir()  # if nothing is in it
        return deleted

    def _refresh(self, folder: Path) -> None:
        self._used_s[folder] = time.monotonic()
        with suppress(OSError):  # for the server that comes after this one
            os.utime(folder)

    def _remove_older(self, parent: Path, kind: str) -> None:
        own = [path for path in _folders(parent, re.compile(rf"{kind}-\w+")) if not self._busy[path]]
        with suppress(OSError):
            for path in sorted(own, key=lambda path: path.stat().st_mtime_ns)[:-KEPT_EACH]:
                remove(path)

    def _own_server(self) -> Path:
        if self._server is None or not self._server.is_dir():
            self._server = self._own_root() / f"server-{secrets.token_hex(8)}"
            self._server.mkdir(mode=0o700)
            self._holding.enter_context(held(self._server))
            self._pid = os.getpid()
            atexit.register(self.close)
        return self._server

    def _own_root(self) -> Path:
        with self._lock:
            if self._root is None or not self._root.is_dir():
                self._root = _private(self._chosen or Path(tempfile.gettempdir()) / f"fisher-merge-studio-{_user()}")
            return self._root


def _private(root: Path) -> Path:
    """`root` where it is this user's own folder, closed to others; else a new one. Others may write beside it."""
    with suppress(FileExistsError):
        root.mkdir(mode=0o700, parents=True)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != _user():
        return Path(tempfile.mkdtemp(prefix="fisher-merge-studio-"))
    root.chmod(0o700)
    return root


def _user() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0


def _folders(parent: Path, pattern: re.Pattern) -> list[Path]:
    """The folders of such names in a folder, links left out."""
    try:
        with os.scandir(parent) as found:
            return [
                parent / one.name for one in found if pattern.fullmatch(one.name) and one.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []


FOLDERS = VisitFolders()
