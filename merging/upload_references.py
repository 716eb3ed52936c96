"""What recipes call the uploads of a hosted page's visitors: names that nobody guesses, and that say nothing of the server."""

import os
import re
from pathlib import Path

from merging.errors import TaskError, shown

UPLOAD = "upload:"
# A visit's random folder, a hash of the content, and a name that says something.
UPLOADED = re.compile(rf"{UPLOAD}([0-9a-f]{{32}}/[0-9a-f]{{16}}/[\w-]{{1,60}}(\.[a-z]{{3,7}})?)")


def uploads_folder() -> Path | None:
    """Where a server keeps its visitors' uploads: `$FISHER_UPLOADS_DIR`; None where nobody uploads."""
    chosen = os.environ.get("FISHER_UPLOADS_DIR")
    return Path(chosen) if chosen else None


def upload_reference(path: Path) -> str:
    """What recipes call an upload that `receive_upload` put below `uploads_folder`: it names no place on the server."""
    return f"{UPLOAD}{path.relative_to(uploads_folder()).as_posix()}"


def upload_path(reference: str) -> Path:
    """Where an upload lies. Raises: TaskError if it is not there (any more)."""
    folder, place = uploads_folder(), UPLOADED.fullmatch(reference)
    path = folder / place[1] if folder and place else None
    if path is None or not path.exists():
        raise TaskError(
            f"{shown(reference)} is not there: expected an upload of this visit, which is kept for an hour after its last use, "
            "got none. Upload the data again."
        )
    return path
