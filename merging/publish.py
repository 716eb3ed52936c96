"""Pushes an exported folder to the Hugging Face Hub: private unless told otherwise, and only where this tool may write."""

import fnmatch
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from merging.errors import ExportError, quoted

MARKERS = ("recipe.yaml", "scores.json", "config.json", "README.md")  # of an exported folder
TAG = "fisher-merging"  # in the card of every repository that this tool made
# What a later export replaces as a whole: a shard of an earlier one must not stay beside it.
REPLACED = ("*.safetensors", "*.safetensors.index.json")
Answer = TypeVar("Answer")
OnProgress = Callable[[float, str], None]


def push(
    folder: str | Path,
    repository: str,
    *,
    token: str | None = None,
    private: bool = True,
    on_progress: OnProgress | None = None,
) -> str:
    """Uploads an exported folder to `ORG/NAME` and returns the address of its page.

    The repository is created, private unless told otherwise. One that exists is written to only if an earlier push made
    it. None is ever deleted. Without `token` the one that the user is logged in with is used.

    Raises: ExportError; what an upload that broke has sent stays, and pushing again completes it.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    report = on_progress or (lambda fraction, text: None)
    folder = Path(folder).expanduser()
    files = _exported_files(folder)
    _check_name(repository)
    api = HfApi(token=token)
    report(0.0, f"Looking for {repository}")
    there = _existing_files(api, repository, private=private)
    operations = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    if there is None:
        _asked(repository, lambda: api.create_repo(repository, private=private, exist_ok=False))
        # Says whose it is, should the upload of the weights break.
        marks = [CommitOperationAdd(name, str(files[name])) for name in ("recipe.yaml", "README.md")]
        _asked(repository, lambda: api.create_commit(repository, marks, commit_message="Recipe and card"))
    stale = [name for name in there or () if name not in files and any(fnmatch.fnmatch(name, one) for one in REPLACED)]
    operations += [CommitOperationDelete(name) for name in stale]
    size = sum(path.stat().st_size for path in files.values())
    report(0.1, f"Uploading {len(files)} files, {size / 1e6:,.1f} MB")
    _asked(repository, lambda: api.create_commit(repository, operations, commit_message="Merged model"))
    report(1.0, "Uploaded")
    return f"{api.endpoint}/{repository}"


def _exported_files(folder: Path) -> dict[str, Path]:
    """The files of an exported folder by their names in the repository. Raises: ExportError if it is none."""
    missing = [name for name in MARKERS if not (folder / name).is_file()]
    if missing:
        raise ExportError(
            f'"{folder.name}" cannot be pushed: expected a folder that was exported from here, got one without '
            f"{quoted(missing)}. Export the merged model first."
        )
    names = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in names.items() if not any(part.startswith(".") for part in name.split("/"))}


def _check_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
        problem = None if repository.count("/") == 1 else "no owner"
    except HFValidationError as error:
        problem = str(error).splitlines()[0]
    if problem:
        raise ExportError(
            f'"{repository}" is no name for a repository: expected ORG/NAME, got one that the Hub refuses ({problem}). '
            "Choose another name."
        )


def _existing_files(api: object, repository: str, *, private: bool) -> list[str] | None:
    """The files of a repository that an earlier push made; None where there is no repository.

    Raises: ExportError if it is somebody else's, or open to all where it should be private.
    """
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    def look() -> object | None:
        try:
            return api.model_info(repository)
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            return None

    info = _asked(repository, look)
    if info is None:
        return None
    names = [sibling.rfilename for sibling in info.siblings or ()]
    if "recipe.yaml" not in names or TAG not in (info.tags or ()):
        raise ExportError(
            f'"{repository}" cannot be written: expected a new repository, or one that an earlier push made (with '
            f"recipe.yaml and the tag {TAG}), got one with other content. Choose another name; nothing was changed."
        )
    if private and not info.private:
        raise ExportError(
            f'"{repository}" cannot be written: expected a private repository, got one that is open to all. '
            "Ask for a public push, or choose another name; nothing was changed."
        )
    return names


def _asked(repository: str, ask: Callable[[], Answer]) -> Answer:
    """What `ask` gives. Raises: ExportError for what the Hub refuses; it names no token."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        return ask()
    except OfflineModeIsEnabled as problem:
        raise ExportError(
            f'"{repository}" cannot be written: expected a connection to the Hub, got offline mode. Unset HF_HUB_OFFLINE.'
        ) from problem
    except (HfHubHTTPError, LocalTokenNotFoundError) as problem:
        status = problem.response.status_code if isinstance(problem, HfHubHTTPError) else 401
        if status in (401, 403):
            raise ExportError(
                f'"{repository}" cannot be written: expected a token that may write there, got none, or one without that '
                f'right. Set HF_TOKEN to one with write access to {repository.split("/")[0]}, or run "hf auth login".'
            ) from problem
        raise ExportError(_broken(repository, f"the answer {status}")) from problem
    # The client wraps what breaks an upload in its own ways.
    except (HTTPError, OSError, RuntimeError, ValueError) as problem:
        cause = problem.__cause__ or problem
        raise ExportError(_broken(repository, str(cause).splitlines()[0][:160] or type(cause).__name__)) from problem


def _broken(repository: str, got: str) -> str:
    return (
        f'"{repository}" cannot be written: expected an upload to the Hub, got "{got}". '
        "Push again; what was sent is kept."
    )
