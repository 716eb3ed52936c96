"""The Hugging Face Hub: what a repository says of itself, and its files; safetensors and small files only."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from merging.downloads import touched
from merging.errors import CheckpointError, quoted
from merging.readers import is_shared
from merging.refusals import HubUnreachable, asked

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
SMALL_FILES = (".json", ".txt", ".model", ".jinja", "README.md")
INDEX, SINGLE, ADAPTER = "model.safetensors.index.json", "model.safetensors", "adapter_model.safetensors"


@dataclass(frozen=True, eq=False)
class Listing:
    """What the Hub says of a repository at one commit: its files with their sizes in bytes, and its card's metadata."""

    repository: str
    commit: str
    sizes: Mapping[str, int] = field(repr=False)
    card: Mapping[str, object] = field(repr=False)
    # False where the user's token was refused and everything goes without one.
    token: bool | None = field(default=None, repr=False)

    @property
    def weights(self) -> list[str]:
        """The files that hold the weights, the shards of an index included. Raises: CheckpointError if there are none."""
        top = [name for name in self.sizes if "/" not in name]
        found = next(([name] for name in (SINGLE, ADAPTER) if name in top and INDEX not in top), None)
        found = found or sorted(name for name in top if name.endswith(".safetensors"))
        if not found:
            pickles = [name for name in top if name.endswith(PICKLES)]
            raise CheckpointError(
                f'"{self.repository}" cannot be opened: expected weights in safetensors, got '
                f"{f'pickled weights ({quoted(pickles)})' if pickles else 'no weights'}. "
                "Pickles can run code and are never opened; pick a revision with safetensors."
            )
        return found

    @property
    def small_files(self) -> list[str]:
        """Configuration, tokenizer or image processor, and card."""
        return sorted(name for name in self.sizes if "/" not in name and name.endswith(SMALL_FILES))

    def missing_bytes(self) -> int:
        """How much is still to be downloaded."""
        return sum(self.sizes[name] for name in [*self.weights, *self.small_files] if self.cached(name) is None)

    def cached(self, name: str) -> Path | None:
        """A file's copy on this machine."""
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(self.repository, name, revision=self.commit)
        return Path(path) if isinstance(path, str) else None


def is_hub_id(reference: str) -> bool:
    """Whether it reads like `org/name` with an optional `@revision`."""
    return reference.split("@")[0].count("/") == 1 and not reference.startswith((".", "~", "/"))


def look_up(reference: str) -> Listing:
    """Asks the Hub for a repository; `main` unless the reference has an `@revision`. Downloads nothing.

    A token that the Hub refuses is left out, with a warning.

    Raises: CheckpointError if there is no such repository or revision, or if it cannot be read; HubUnreachable.
    """
    from huggingface_hub import HfApi

    repository, _, revision = reference.partition("@")

    def ask(token: bool | str | None) -> Listing:
        info = HfApi().model_info(repository, revision=revision or None, files_metadata=True, token=token)
        card = info.card_data.to_dict() if info.card_data else {}
        sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or ()}
        if odd := [name for name, size in sizes.items() if not isinstance(size, int)]:
            raise CheckpointError(
                f'"{reference}" cannot be read: expected the sizes of its files in bytes, got {sizes[odd[0]]!r:.40} for '
                f"{odd[0]:.80}. Try again later, or pick another revision."
            )
        return Listing(repository, str(info.sha), sizes, card, False if token is False else None)

    return asked(reference, ask, None)


def read_json(listing: Listing, name: str) -> object:
    """A JSON file of a repository, downloaded where it is not in the cache. Raises: CheckpointError."""
    from huggingface_hub import hf_hub_download

    def ask(token: bool | str | None) -> Path:
        return Path(hf_hub_download(listing.repository, name, revision=listing.commit, token=token))

    path = listing.cached(name) or asked(listing.repository, ask, listing.token)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise CheckpointError(
            f'"{listing.repository}" is damaged: expected JSON in {name}, got "{problem}". Pick another revision.'
        ) from problem


def read_tensor_headers(listing: Listing) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Data type and shape of every stored tensor, from the first bytes of the weights' files. Raises: CheckpointError."""
    from huggingface_hub import HfApi

    headers: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in listing.weights:

        def ask(token: bool | str | None, name: str = name) -> Mapping[str, object]:
            options = {"revision": listing.commit, "token": token}
            return HfApi().parse_safetensors_file_metadata(listing.repository, name, **options).tensors

        for tensor, about in asked(listing.repository, ask, listing.token).items():
            headers[tensor] = (str(about.dtype), tuple(about.shape))
    return headers


def fetch(reference: str) -> Path:
    """The folder with a repository's safetensors and small files, downloaded where they are not in the cache.

    Without a network the cache serves, if it is complete and for everybody. A transfer that breaks goes on from where it
    stopped.

    Raises: CheckpointError, before anything is downloaded where that can be seen by then.
    """
    try:
        listing = look_up(reference)
    except HubUnreachable as problem:
        if is_shared():
            raise
        return touched(_offline_folder(reference, problem))
    require_space(reference, listing.missing_bytes())

    def ask(token: bool | str | None) -> Path:
        from huggingface_hub import snapshot_download

        repository, _, revision = reference.partition("@")
        files = [*listing.weights, *listing.small_files]
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=files, token=token))

    return touched(asked(reference, ask, listing.token))


def cached_commit(reference: str) -> str | None:
    """The commit of a repository's copy on this machine, as its revision was last seen."""
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = reference.partition("@")
    for name in ("config.json", "adapter_config.json"):
        path = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(path, str):
            return Path(path).parent.name
    return None


def require_space(reference: str, size_bytes: int) -> None:
    """Raises: CheckpointError if the disk of the Hub's cache has no room for that much."""
    free = free_bytes()
    if size_bytes > free:
        raise CheckpointError(
            f'"{reference}" cannot be downloaded: expected {size_bytes / 1e9:.2f} GB of free disk, got {free / 1e9:.2f} GB. '
            "Free some space, or set HF_HOME to a folder on a larger disk."
        )


def free_bytes() -> int:
    """The free space of the disk that holds the Hub's cache."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE)
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def _offline_folder(reference: str, problem: Exception) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = reference.partition("@")
    try:
        folder = Path(
            snapshot_download(
                repository, revision=revision or None, local_files_only=True, allow_patterns=["config.json"]
            )
        )
        index = folder / INDEX
        names = set(json.loads(index.read_text())["weight_map"].values()) if index.is_file() else {SINGLE, ADAPTER}
        there = [(folder / name).is_file() for name in names]
        if all(there) if index.is_file() else any(there) or any(folder.glob("*.safetensors")):
            return folder
    except (OSError, ValueError, KeyError):
        pass
    raise problem
