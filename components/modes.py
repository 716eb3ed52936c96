"""Who uses the page: its owner, on this machine, or strangers, for whom it opens what is embedded and what the Hub has."""

import os
import re
from collections.abc import Mapping

from merging.errors import RecipeError, shown
from merging.limits import HOSTED, Limits
from merging.recipe import Recipe
from merging.upload_references import UPLOADED
from merging.uploads import Limits as UploadLimits

# Set by `python app.py --hosted`; a Space sets SPACE_ID.
CHOSEN = "FISHER_STUDIO_HOSTED"
HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}(@[A-Za-z0-9_][\w.-]{0,95})?", re.ASCII)
UPLOAD_LIMITS = UploadLimits(upload_bytes=50 << 20, total_bytes=200 << 20, files=20_000)
EMBEDDED = re.compile(r"zoo:[\w.-]+/[\w.-]+", re.ASCII)


def is_hosted() -> bool:
    """Whether strangers use this page: folders of the server stay closed."""
    return bool(os.environ.get("SPACE_ID") or os.environ.get(CHOSEN))


def limits() -> Limits | None:
    """What a recipe may take at most here; None on one's own machine."""
    return HOSTED if is_hosted() else None


def require_own_machine() -> None:
    """Raises: RecipeError on a hosted page, whose hidden widgets can still be called by its API."""
    if is_hosted():
        raise RecipeError(
            "This cannot be done here: expected a page on your own machine, got a hosted one, which opens no files of its "
            "server and pushes nothing in its name. Run the studio yourself."
        )


def require_open_to_all(recipe: Recipe) -> None:
    """Checkpoints and tasks are embedded ones or of the Hub, none a folder, file or address. Raises: RecipeError."""
    for reference in [*[entry.checkpoint for entry in recipe.models], *([recipe.base] if recipe.base else [])]:
        require_public(reference)
    for task in [*[entry.task for entry in recipe.models], *recipe.evaluation.tasks]:
        require_public_task(task)


def require_public(reference: object) -> None:
    """Raises: RecipeError unless it is zoo:POOL/NAME or the id of a repository on the Hub."""
    text = reference if isinstance(reference, str) else ""
    # A folder of the server whose name reads like an id would be opened in the Hub's stead.
    is_id = HUB_ID.fullmatch(text) and ".." not in text and not os.path.lexists(text.partition("@")[0])
    if not is_id and not EMBEDDED.fullmatch(text):
        raise _refused(reference)


def require_public_task(task: object) -> None:
    """The same for a task: an embedded one, an upload, or fields with the `dataset` of the Hub or an upload as `file`."""
    if isinstance(task, Mapping) and "folder" not in task and ("file" in task) != ("dataset" in task):
        if "file" in task and not _is_upload(task["file"]):
            raise _refused(task["file"])
        if "dataset" in task and "@" in str(task["dataset"]):
            raise _refused(task["dataset"])
        if "dataset" in task:
            require_public(task["dataset"])
    elif not _is_upload(task) and not (isinstance(task, str) and EMBEDDED.fullmatch(task)):
        raise _refused(task)


def _is_upload(reference: object) -> bool:
    return isinstance(reference, str) and UPLOADED.fullmatch(reference) is not None


def _refused(reference: object) -> RecipeError:
    return RecipeError(
        f"{shown(reference)} cannot be opened here: expected an embedded checkpoint or task (zoo:POOL/NAME) or an id of "
        "the Hugging Face Hub (org/name). Run the studio on your own machine to merge from folders."
    )
