"""What killed processes leave behind, told from what is in use: by locks that end with their process, then by age.

A clock may jump in either direction: what is held is in use whatever its age, and a time in the future begins anew.
"""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, which deletes no open files; there the age alone decides
    fcntl = None

# Two machines on one folder, or a file system with coarse times, may differ by so much.
CLOCK_SLACK_S = 60.0


@contextmanager
def held_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, held inside and gone afterwards. Raises: OSError if there can be none."""
    folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    try:
        with held(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Marks a file or folder as in use, as far as the system can; it ends with the process, however that ends."""
    descriptor = None
    if fcntl:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a living process, this one or another, holds it."""
    if not fcntl:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as problem:
        return not isinstance(problem, FileNotFoundError)  # in doubt it is
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks: its age decides
        return False
    finally:
        os.close(descriptor)
    return False


def changed_s(path: Path) -> float | None:
    """When a file or folder last changed, in seconds of the clock; what lies in the future is set to now. None if it is gone."""
    try:
        found = path.lstat()
        if found.st_mtime > time.time() + CLOCK_SLACK_S and not stat.S_ISLNK(found.st_mode):
            os.utime(path)
            found = path.lstat()
        return found.st_mtime
    except OSError:
        return None


def is_leftover(path: Path, older_than_s: float) -> bool:
    """Whether nobody holds a file or folder and it has not changed for so long; never true of a link."""
    changed = changed_s(path)
    if changed is None or path.is_symlink() or time.time() - changed <= older_than_s:
        return False
    return not is_held(path)


def remove(path: Path) -> bool:
    """Deletes a file, or a folder with all that is in it but nothing that links in it lead to; whether it is gone.

    It disappears at once, whole, under a name that a later sweep finds should this process be killed meanwhile.
    """
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return True
        if not path.name.startswith("."):
            path = _aside(path)
        shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _aside(path: Path) -> Path:
    gone = Path(tempfile.mkdtemp(dir=path.parent, prefix=".evicted-"))
    try:
        return path.rename(gone / path.name).parent
    except OSError:
        gone.rmdir()
        raise
