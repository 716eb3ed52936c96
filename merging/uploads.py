"""Files that a stranger sent: sizes are checked before anything is read, and a zip is unpacked whole or not at all."""

import hashlib
import os
import shutil
import stat
import warnings
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from merging.cache import cache_folder
from merging.cache_space import make_room, mark_used
from merging.errors import TaskError, quoted
from merging.leftovers import held_folder
from merging.sources import FORMATS, IMAGES

GIB = 1 << 30
ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")
# What operating systems put into a zip beside the pictures.
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """How much is taken: an upload's and its unpacked content's bytes, its files, and unpacked by packed bytes."""

    upload_bytes: int = 2 * GIB
    total_bytes: int = 4 * GIB
    files: int = 200_000
    # Pictures are compressed already; bitmaps of one colour shrink some hundred times, bombs a thousand.
    ratio: float = 200.0
    ratio_from_bytes: int = 10 << 20


def receive_upload(upload: Path, folder: Path | None = None, *, limits: Limits = Limits()) -> Path:
    """An uploaded file as something that `open_task` opens: data files as they are, a zip of image folders unpacked.

    All goes into `folder`, such as a visit's; without one a data file stays where it is, and a zip goes into the
    user's cache. The name is made of the content: the same upload twice is unpacked once.

    Raises: TaskError if it is too large, of another kind, or unsafe to unpack.
    """
    upload = Path(upload)
    check_upload(upload, limits=limits)
    is_zip = upload.suffix.lower() == ".zip"
    if folder is None and not is_zip:
        return upload
    # The outer folder keeps the content apart, the inner name says something.
    own = (folder or cache_folder() / "uploads") / _digest(upload)
    if not is_zip:
        return _copied(upload, own / f"{_plain(upload.stem) or 'rows'}{upload.suffix.lower()}")
    target = own / (_plain(upload.stem) or "images")
    if not target.is_dir():
        unpack_images(upload, target, limits=limits)
        if folder is None:
            make_room(cache_folder(), keep=own)
    mark_used(own)
    return target


def check_upload(upload: Path, *, limits: Limits = Limits()) -> None:
    """Looks at the name and the size alone. Raises: TaskError if an upload is too large or of an unknown kind."""
    kinds = (*FORMATS, ".zip")
    if upload.suffix.lower() not in kinds:
        raise TaskError(
            f'"{upload.name}" cannot be used: expected a file that ends in {", ".join(kinds)}, '
            f'got "{upload.suffix or "no ending"}". Save the data as one of these.'
        )
    try:
        size = upload.stat().st_size
    except OSError as problem:
        raise TaskError(f'"{upload.name}" cannot be read: expected a file, got "{problem.strerror}".') from problem
    if size > limits.upload_bytes:
        raise TaskError(
            f'"{upload.name}" is too large: expected at most {_size(limits.upload_bytes)}, got {_size(size)}. '
            "Send part of the rows, or run the program where the data are and name their folder."
        )


def unpack_images(archive: Path, target: Path, *, limits: Limits = Limits()) -> Path:
    """Unpacks a zip of pictures into `target`, which is whole or not there.

    Raises: TaskError if an entry leads outside, is encrypted, a link, no picture, damaged, or if there is too much.
    """
    try:
        with zipfile.ZipFile(archive) as packed:
            entries = _checked_entries(packed, archive.name, limits)
            target.parent.mkdir(parents=True, exist_ok=True)
            _check_disk(archive.name, target.parent, sum(entry.file_size for entry in entries))
            with held_folder(target.parent, ".unpacking-") as temporary:
                left = limits.total_bytes
                for entry in entries:
                    path = temporary / target.name / entry.filename
                    left -= _write_entry(packed, entry, path, left, archive.name)
                    check_picture(path, f'"{entry.filename}" in "{archive.name}"')
                os.replace(temporary / target.name, target)
        return target
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError) as problem:
        raise _refused(archive.name, "a sound zip file", str(problem)[:120], "Pack it again.") from problem
    except OSError as problem:
        if target.is_dir():  # another upload of the same content was quicker
            return target
        reason = problem.strerror or str(problem)
        raise _refused(archive.name, "a zip file, and room on the disk", reason, "Pack it again.") from problem
    finally:
        with suppress(OSError):
            target.parent.rmdir()  # if nothing is in it


def check_picture(path: Path, what: str) -> None:
    """Reads a picture's structure. Raises: TaskError if it is damaged, too large, or no picture."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow warns of pictures that are small on disk and huge in memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                picture.verify()
    # Pillow's plugins raise many kinds of errors on damaged files.
    except Exception as problem:
        reason = "a damaged file" if "cannot identify" in str(problem) else repr(str(problem)[:120])
        raise TaskError(
            f"{what} cannot be read: expected a picture, got {reason}. Replace the file, or take it out."
        ) from problem


def _digest(upload: Path) -> str:
    digest = hashlib.sha256()
    with upload.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()[:16]


def _copied(upload: Path, target: Path) -> Path:
    """A data file at `target`, whole or not there. Raises: TaskError if there is no room for it."""
    if target.is_file():
        mark_used(target.parent)
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with held_folder(target.parent, ".unpacking-") as temporary:
            shutil.copyfile(upload, temporary / target.name)
            os.replace(temporary / target.name, target)
    except OSError as problem:
        with suppress(OSError):
            target.parent.rmdir()
        reason = problem.strerror or str(problem)
        raise TaskError(
            f'"{upload.name}" cannot be kept: expected room on the disk, got "{reason}". Free some space, or send less.'
        ) from problem
    return target


def _checked_entries(packed: zipfile.ZipFile, name: str, limits: Limits) -> list[zipfile.ZipInfo]:
    """The entries to unpack, by what the zip says of them; nothing has been unpacked yet."""
    entries = [
        entry for entry in packed.infolist() if not entry.filename.endswith("/") and not _is_litter(entry.filename)
    ]
    if len(entries) > limits.files:
        raise _refused(name, f"at most {limits.files:,} files", f"{len(entries):,}", "Send fewer.")
    for entry in entries:
        _check_entry(entry, name)
    folded = [entry.filename.casefold() for entry in entries]
    if len(set(folded)) < len(folded):
        twice = {entry for entry in folded if folded.count(entry) > 1} if len(folded) < 1000 else {"several names"}
        raise _refused(name, "every file once", f"twice {quoted(twice)}", "Rename them.")
    total = sum(entry.file_size for entry in entries)
    if total > limits.total_bytes:
        raise _refused(name, f"at most {_size(limits.total_bytes)} unpacked", _size(total), "Send fewer pictures.")
    ratio = total / max(sum(entry.compress_size for entry in entries), 1)
    if total > limits.ratio_from_bytes and ratio > limits.ratio:
        got = f"{ratio:,.0f} times"
        raise _refused(name, f"content at most {limits.ratio:,.0f} times its size", got, "It looks like a zip bomb.")
    if not entries:
        raise _refused(name, "folders of pictures, one per class", "no pictures", "Pack the folders.")
    return entries


def _check_entry(entry: zipfile.ZipInfo, name: str) -> None:
    path, mode = PurePosixPath(entry.filename.replace("\\", "/")), entry.external_attr >> 16
    shown = f'"{entry.filename[:120]}"'
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\\" in entry.filename:
        raise _refused(name, "paths inside the zip", shown, "It would be written outside; pack the folders anew.")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise _refused(name, "plain files", f"the link or device {shown}", "Pack the pictures themselves.")
    if entry.flag_bits & 0x1:
        raise _refused(name, "files without a password", f"the encrypted {shown}", "Pack them without one.")
    suffix = path.suffix.lower()
    if suffix in ARCHIVES:
        raise _refused(name, "pictures", f"the nested archive {shown}", "Unpack it first.")
    if suffix not in IMAGES:
        raise _refused(name, f"pictures ({', '.join(IMAGES)})", shown, "Take it out.")


def _write_entry(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, left: int, name: str) -> int:
    """Unpacks one entry and counts its bytes, whatever the zip said of its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with packed.open(entry) as source, path.open("xb") as sink:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > min(left, entry.file_size):
                got = f'more than it says at "{entry.filename}"'
                raise _refused(name, f"{_size(entry.file_size)} there", got, "It looks like a zip bomb.")
            sink.write(block)
    return written


def _check_disk(name: str, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise _refused(name, f"{_size(needed)} of free disk", _size(free), "Free some space.")


def _is_litter(name: str) -> bool:
    path = PurePosixPath(name)
    return "__MACOSX" in path.parts or path.name in LITTER or path.name.startswith("._")


def _refused(name: str, expected: str, got: str, advice: str) -> TaskError:
    return TaskError(f'"{name}" cannot be unpacked: expected {expected}, got {got}. {advice}')


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:60]


def _size(size_bytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes} bytes"
