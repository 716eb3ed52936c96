"""Datasets of the Hugging Face Hub: loaded by `datasets`, and its refusals as messages for the user."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TypeVar

from merging.dataset_library import library, no_room
from merging.errors import TaskError, nearest, quoted
from merging.own_data import require_no_null_row, require_own_files, require_own_pictures
from merging.readers import account, is_shared, token_for
from merging.references import is_file, is_folder, local_path
from merging.refusals import is_refused_token, log_in, nearest_ids, warn_of_refused_token

Answer = TypeVar("Answer")


def asked_of(
    dataset: str, ask: Callable[[bool | str | None], Answer], *, config: str | None = None, split: str | None = None
) -> Answer:
    """What `ask(token)` gives, `token` being a reader's or None for the user's own; if it is refused, what False gives: none.

    Raises: TaskError, which offers the nearest dataset, configuration or split.
    """
    try:
        try:
            return ask(token_for(None))
        except OSError as problem:
            if not is_refused_token(problem):
                raise
            warn_of_refused_token("datasets")
            return ask(False)
    except TaskError:
        raise
    # datasets passes on whatever the Hub's client, pyarrow or pandas raise.
    except Exception as problem:
        raise TaskError(f'Dataset "{dataset}" cannot be had: {_refusal(dataset, config, split, problem)}') from problem


def load_rows(dataset: str, config: str | None, split: str, revision: str | None):
    """A split as a `datasets.Dataset`, downloaded where it is not in the cache. Raises: TaskError."""
    # A folder may change; a dataset of the Hub stays as it was when this process first read it for the same account.
    if _is_here(dataset):
        return _load(dataset, config, split, revision)
    return _load_once(dataset, config, split, revision, account())


def dataset_stamp(dataset: str) -> tuple[object, ...]:
    """Changes when `load_rows` gives others: for a folder with its files, for the Hub with the account."""
    if not _is_here(dataset):
        return (account(),)
    own = local_path(dataset)
    return tuple((path, path.stat().st_mtime_ns) for path in sorted((own, *own.rglob("*"))))


def _load(dataset: str, config: str | None, split: str, revision: str | None):
    def ask(token: bool | str | None):
        builder = open_builder(dataset, config, revision, token)
        if not Path(builder.cache_dir).is_dir():  # not read before
            require_rows(builder, token)
        builder.download_and_prepare()
        return builder.as_dataset(split)

    rows = asked_of(dataset, ask, config=config, split=split)
    return require_own_pictures(rows, f'Dataset "{dataset}"', _downloads(dataset, rows))


@lru_cache(maxsize=64)
def _load_once(dataset: str, config: str | None, split: str, revision: str | None, of_account: str):
    return _load(dataset, config, split, revision)


def open_builder(dataset: str, config: str | None, revision: str | None, token: bool | str | None):
    """A dataset's `datasets.DatasetBuilder`, its card looked at. Raises: TaskError, and whatever `datasets` raises."""
    return library().load_dataset_builder(dataset, config, revision=check_card(dataset, revision, token), token=token)


def require_rows(builder, token: bool | str | None, *, most_bytes: int | None = None) -> None:
    """Raises: TaskError at a null in place of a row of a dataset's JSON files, or of the first `most_bytes` of each."""
    from datasets.utils.file_utils import xopen

    if builder.info.builder_name != "json":
        return
    settings = library().DownloadConfig(token=token)
    for files in (builder.config.data_files or {}).values():
        for address in files:
            name = Path(address).name
            if most_bytes is not None:
                with xopen(address, "rb", download_config=settings) as file:
                    require_no_null_row(BytesIO(file.read(most_bytes)), name)
                continue
            manager = library().DownloadManager(dataset_name=builder.dataset_name, download_config=settings)
            for path in manager.iter_files(manager.download_and_extract(address)):
                with open(path, "rb") as file:
                    require_no_null_row(file, name)


def check_card(dataset: str, revision: str | None, token: bool | str | None) -> str | None:
    """Reads a dataset's card where the Hub can be reached; the commit it is of, so that no other one is loaded.

    Without one, `revision`, unless what is here is not for everybody. Raises: TaskError if the card names files that are not
    the dataset's own; whatever the Hub's client raises.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    if _is_here(dataset):
        return revision
    try:
        info = HfApi().dataset_info(dataset, revision=revision, token=token)
    except HfHubHTTPError as problem:
        if problem.response.status_code < 500 and not is_shared():
            return revision  # and will be refused
        raise
    except (OfflineModeIsEnabled, HTTPError):
        if is_shared():
            raise
        return revision  # without a network there is only the cache, whose datasets were looked at before
    require_own_files(dataset, (info.card_data.to_dict() if info.card_data else {}).get("configs"))
    return info.sha or revision


def require_dataset_size(about: Mapping[str, object], most_bytes: int) -> None:
    """Raises: TaskError if the repository of a task's dataset holds more, by what the Hub says of its files."""
    from huggingface_hub import HfApi

    dataset, revision = str(about["dataset"]), about.get("revision")

    def ask(token: bool | str | None) -> int:
        info = HfApi().dataset_info(dataset, revision=revision, files_metadata=True, token=token)
        return sum(file.size or 0 for file in info.siblings or ())

    size = asked_of(dataset, ask)
    if size > most_bytes:
        raise TaskError(
            f'Dataset "{dataset}" is too large for this page: expected at most {most_bytes / 1e9:.1f} GB of files, got '
            f"{size / 1e9:.1f} GB. Pick a smaller one, or run the studio on your own machine."
        )


def _downloads(dataset: str, rows) -> list[Path]:
    """Where the pictures of a folder of pictures lie; other data hold theirs, whatever they name."""
    import datasets
    from huggingface_hub import constants

    if rows.info.builder_name != "imagefolder":
        return []
    here = [local_path(dataset)] if _is_here(dataset) else []
    return [Path(datasets.config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE), *here]


def _is_here(dataset: str) -> bool:
    return is_folder(dataset) or is_file(dataset)


def _refusal(dataset: str, config: str | None, split: str | None, problem: Exception) -> str:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    reason = str(problem).strip()
    if isinstance(problem, GatedRepoError) or (isinstance(problem, DatasetNotFoundError) and "gated" in reason):
        return (
            "expected one that you may read, got a gated one. Accept its licence on its page on the Hub, "
            f"then {log_in()}."
        )
    if isinstance(problem, DatasetNotFoundError | RepositoryNotFoundError) and "Revision" not in reason:
        near = nearest_ids(dataset, token_for(None), kind="dataset")
        hint = f"Did you mean {quoted(near)}? " if near else "Check the spelling. "
        return (
            "expected the id of a dataset on the Hugging Face Hub, got one that does not exist, or is private. "
            f"{hint}If it is private, {log_in()}."
        )
    if isinstance(problem, ValueError) and (known := _unknown_word(dataset, config, split)):
        return known
    return no_room(problem) or (
        f"expected it on the Hugging Face Hub, got {reason[:200]!r}. "
        "Check the spelling and the connection, or use a folder."
    )


def _unknown_word(dataset: str, config: str | None, split: str | None) -> str | None:
    """What to say if the dataset has no such configuration or split."""
    from datasets import get_dataset_config_names, get_dataset_split_names

    own = {"token": token_for(None)}
    questions = [("configuration", config, lambda: get_dataset_config_names(dataset, **own))]
    if split is not None:
        questions.append(("split", split.split("[")[0], lambda: get_dataset_split_names(dataset, config, **own)))
    for what, asked, names in questions:
        try:
            there = names()
        except Exception:
            return None
        if asked not in there and not (asked is None and len(there) == 1):
            got = "none" if asked is None else f'"{asked}"'
            return f"expected one of its {what}s ({quoted(there, 9)}), got {got}. {nearest(asked or '', there)}"
    return None
