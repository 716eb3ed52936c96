"""Questions to the Hugging Face Hub: asked again where that helps, and its refusals as messages for the user."""

import difflib
import errno
import warnings
from collections.abc import Callable
from typing import TypeVar

from merging.errors import CheckpointError, quoted
from merging.readers import is_shared, reader, token_for

ATTEMPTS = 3  # of a question; within one transfer the client itself goes on from where it broke, five times
REVOKED = "Invalid credentials in Authorization header"  # what the Hub says of a token that is none (any more)

Answer = TypeVar("Answer")


class HubUnreachable(CheckpointError):
    """No connection to the Hub, or offline mode."""


def log_in() -> str:
    """What to do to read what is private."""
    if is_shared():
        return "press “Sign in with Hugging Face”, with an account that may read it"
    return 'set HF_TOKEN to a token of an account that may read it, or run "hf auth login"'


def asked(reference: str, ask: Callable[[bool | str | None], Answer], token: bool | None) -> Answer:
    """What `ask(token)` gives; once more without a token that is refused, and again after a broken connection.

    `token` is None for the user's own, in whose place a reader's goes, or False for none.

    Raises: CheckpointError, which says how to go on; HubUnreachable without a connection.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    last: Exception | None = None
    for _ in range(ATTEMPTS):
        try:
            return ask(token_for(token))
        except OfflineModeIsEnabled as problem:
            raise HubUnreachable(_unreachable(reference, "offline mode")) from problem
        except HfHubHTTPError as problem:
            last = problem
            if token is None and is_refused_token(problem):
                warn_of_refused_token("checkpoints")
                token = False
            elif problem.response.status_code < 500:
                raise CheckpointError(_refusal(reference, problem, token)) from problem
        # A broken connection, or a file that came shorter than it was announced.
        except (HTTPError, RuntimeError) as problem:  # hf_xet raises the latter
            last = problem
        except OSError as problem:
            last = problem
            if problem.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
                raise CheckpointError(_no_place(reference, problem)) from problem
        except Exception as problem:
            if not _is_malformed(problem):
                raise
            raise CheckpointError(_refusal(reference, problem, token)) from problem
    raise HubUnreachable(_unreachable(reference, _first_line(last))) from last


def _is_malformed(problem: Exception) -> bool:
    """Whether an id, a file's header or a name is not as the Hub's client wants it."""
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, SafetensorsParsingError

    return isinstance(problem, EntryNotFoundError | HFValidationError | SafetensorsParsingError)


def is_refused_token(problem: Exception) -> bool:
    """Whether the Hub refuses the user's or reader's token itself, not what it may read."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

    if not isinstance(problem, HfHubHTTPError) or isinstance(problem, RepositoryNotFoundError):  # a gated one included
        return False
    return problem.response.status_code == 401 and (reader() is not None or get_token() is not None)


def warn_of_refused_token(what: str) -> None:
    """Warns that it goes on without the token. `what` are checkpoints or datasets."""
    new = "a new login" if reader() else "a new HF_TOKEN"
    warnings.warn(
        "Your Hugging Face token is refused: expected a valid one, got one that was revoked or mistyped. "
        f"Going on without it; private and gated {what} need {new}.",
        stacklevel=4,
    )


def _refusal(reference: str, problem: Exception, token: bool | None) -> str:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    if isinstance(problem, GatedRepoError):
        return (
            f'"{reference}" cannot be had: expected a repository that you may read, got a gated one. '
            f"Accept its licence on its page on the Hub, then {log_in()}."
        )
    if isinstance(problem, RepositoryNotFoundError):
        near = nearest_ids(reference.split("@")[0], token_for(token))
        hint = f"Did you mean {quoted(near)}? " if near else "Check the spelling. "
        return (
            f'"{reference}" cannot be had: expected the id of a model on the Hugging Face Hub, got one that does not '
            f"exist, or is private. {hint}If it is private, {log_in()}."
        )
    return (
        f'"{reference}" cannot be had: expected a repository on the Hugging Face Hub, got "{_first_line(problem)}". '
        "Check the id and the revision."
    )


def _no_place(reference: str, problem: OSError) -> str:
    return (
        f'"{reference}" cannot be downloaded: expected a cache with room that can be written, got "{problem.strerror}". '
        "Free some space, or set HF_HOME to another folder."
    )


def nearest_ids(repository: str, token: bool | str | None, *, kind: str = "model") -> list[str]:
    """Up to three ids of models or datasets like this one: by the Hub's search, else among those in the cache."""
    from huggingface_hub import HfApi, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound, HTTPError, OfflineModeIsEnabled

    author, _, name = repository.rpartition("/")
    found: list[str] = []
    listed = HfApi().list_models if kind == "model" else HfApi().list_datasets
    try:
        searches = [{"search": name}, {"author": author}, {"search": name.replace("_", "-").split("-")[0]}]
        for search in searches:
            found += [one.id for one in listed(**search, limit=50, token=token)]
    except (HTTPError, OfflineModeIsEnabled, OSError, ValueError):
        if is_shared():
            return []
        try:
            found += [cached.repo_id for cached in scan_cache_dir().repos if cached.repo_type == kind]
        except (CacheNotFound, OSError):
            return []
    return difflib.get_close_matches(repository, sorted(set(found)), n=3, cutoff=0.5)


def _unreachable(reference: str, reason: str) -> str:
    return (
        f'"{reference}" cannot be had: expected the Hugging Face Hub or a complete copy in the cache, got {reason}. '
        "Check the connection and the spelling, or download it elsewhere and name its folder."
    )


def _first_line(problem: Exception | None) -> str:
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return (lines[1] if len(lines) > 1 and "Client Error" in lines[0] else [*lines, type(problem).__name__][0])[:160]
