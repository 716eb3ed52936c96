"""What a checkpoint says of itself before any weights are read: configuration, stored tensors, sizes, card."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from merging import hub
from merging.documents import read_json, read_text, read_yaml, reason
from merging.errors import CheckpointError, quoted, shown
from merging.references import is_file, is_folder, local_path, nearest_folder, zoo_entry

ADAPTER_CONFIG = "adapter_config.json"
# More classes than any classifier has; a configuration that says so is no reason to make as many names.
MOST_LABELS = 1_000_000
# The files of a tokenizer or an image processor.
PROCESSOR_FILES = ("*processor_config.json", "*token*.json", "tokenizer*", "vocab.*", "merges.txt", "*.model")


class Stored(NamedTuple):
    """A stored tensor: its data type as safetensors writes it (`F32`, `BF16`, …) and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


@dataclass(frozen=True, eq=False)
class Header:
    """A checkpoint's configuration, stored tensors and card.

    `commit` is that of a Hub checkpoint, `folder` where another one lies. `adapter` is a PEFT adapter's configuration;
    such a header holds the adapter's own tensors. `size_bytes` counts weights, `download_bytes` what is not here yet.
    """

    reference: str
    config: Mapping[str, object] = field(repr=False)
    tensors: Mapping[str, Stored] = field(repr=False)
    card: Mapping[str, object] = field(default_factory=dict, repr=False)
    folder: Path | None = None
    commit: str | None = None
    adapter: Mapping[str, object] | None = field(default=None, repr=False)
    size_bytes: int = 0
    download_bytes: int = 0

    @property
    def architecture(self) -> str:
        """The Transformers class; empty where the configuration names none."""
        listed = self.config.get("architectures")
        return str(listed[0]) if isinstance(listed, list) and listed else ""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the head's outputs, in their order."""
        return label_names(self.config)

    @property
    def licence(self) -> str | None:
        """What the card says of the licence."""
        named = self.card.get("license_name") or self.card.get("license")
        return ", ".join(map(str, named)) if isinstance(named, list) else str(named) if named else None


def read_header(reference: str) -> Header:
    """Reads configuration and safetensors headers; of a Hub checkpoint, without downloading weights.

    Raises: CheckpointError if it is missing, damaged or pickled.
    """
    return hub_header(reference) if is_on_hub(reference) else _local_header(resolve_folder(reference), reference)


def hub_header(reference: str) -> Header:
    """The header of a Hub checkpoint; without a network, of its copy in the cache. Raises: CheckpointError."""
    try:
        listing = hub.look_up(reference)
    except hub.HubUnreachable:
        folder = hub.fetch(reference)
        return _local_header(folder, reference, commit=folder.name)
    adapter = hub.read_json(listing, ADAPTER_CONFIG) if is_adapter(listing.sizes) else None
    if adapter is None and "config.json" not in listing.sizes:
        raise CheckpointError(
            f'"{reference}" is no checkpoint: expected a file config.json, got {quoted(listing.sizes)}. '
            "Name a repository with a model in Hugging Face format."
        )
    weights = listing.weights
    config = hub.read_json(listing, "config.json") if "config.json" in listing.sizes else {}
    tensors = {name: Stored(*about) for name, about in hub.read_tensor_headers(listing).items()}
    sizes = {"size_bytes": sum(listing.sizes[name] for name in weights), "download_bytes": listing.missing_bytes()}
    return Header(reference, config, tensors, listing.card, commit=listing.commit, adapter=adapter, **sizes)


def label_names(config: Mapping[str, object]) -> tuple[str, ...]:
    """The names of a configuration's outputs, in their order."""
    names = {int(index): str(name) for index, name in (config.get("id2label") or {}).items()}
    count = len(names) or int(config.get("num_labels", 2))
    if count > MOST_LABELS:
        raise ValueError(f"{count} labels")
    return tuple(names.get(index, f"LABEL_{index}") for index in range(count))


def is_on_hub(reference: str) -> bool:
    """Whether a reference names a repository on the Hub: an id that is no folder here."""
    return not reference.startswith("zoo:") and hub.is_hub_id(reference) and not is_folder(reference)


def pinned_reference(reference: str) -> str:
    """The reference; of a Hub checkpoint that is on this machine, with its commit, so that it stays the same weights."""
    commit = hub.cached_commit(reference) if is_on_hub(reference) else None
    return f"{reference.split('@')[0]}@{commit}" if commit else reference


def is_adapter(names: Mapping[str, object] | set[str]) -> bool:
    """Whether these files are a PEFT adapter without a whole model beside it."""
    return ADAPTER_CONFIG in names and not {hub.SINGLE, hub.INDEX} & set(names)


def resolve_folder(reference: str) -> Path:
    """The local folder of a checkpoint's reference; downloads a Hub checkpoint. Raises: CheckpointError."""
    if reference.startswith("zoo:"):
        pool, _, name = reference.removeprefix("zoo:").partition("/")
        return zoo_entry(pool, "checkpoints", name, CheckpointError)
    folder = local_path(reference)
    if is_folder(folder):
        return folder
    if not hub.is_hub_id(reference):
        raise CheckpointError(
            f'There is no checkpoint "{reference}": expected zoo:POOL/NAME, a folder, or a Hub id like "org/name", '
            f"got a path that is no folder. {nearest_folder(folder)}"
        )
    return hub.fetch(reference)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those that its index names, else model.safetensors, else all there are.

    Raises: CheckpointError if a shard is missing or the index is damaged.
    """
    index = folder / hub.INDEX
    if not index.is_file():
        return [folder / hub.SINGLE] if (folder / hub.SINGLE).is_file() else sorted(folder.glob("*.safetensors"))
    try:
        names = sorted(set(read_json(index.read_text(encoding="utf-8"))["weight_map"].values()))
        # An index of strangers must not lead to somebody else's weights.
        if outside := [name for name in names if Path(name).name != name]:
            raise ValueError(f"the shard {shown(outside[0])} outside the folder")
        files = [folder / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise unreadable(f"{folder.name}/{index.name}", problem) from problem
    missing = [path.name for path in files if not is_file(path)]
    if missing:
        raise CheckpointError(
            f'"{folder.name}" is incomplete: expected the shards of its index, got none of {quoted(missing)}. '
            "Download the checkpoint again."
        )
    return files


def read_config(folder: Path, reference: str) -> dict[str, object]:
    """The content of config.json. Raises: CheckpointError if there is none, or if it is damaged."""
    path = folder / "config.json"
    try:
        return read_json(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise CheckpointError(
            f'"{reference}" is no checkpoint: expected a file config.json, got {reason(problem)}. '
            "Name a folder written by save_pretrained."
        ) from problem
    except ValueError as problem:
        raise CheckpointError(
            f'"{reference}" is damaged: expected JSON in config.json, got {reason(problem)}. Download it again.'
        ) from problem


def read_adapter_config(folder: Path, reference: str) -> dict[str, object]:
    """The content of adapter_config.json. Raises: CheckpointError if it is damaged."""
    try:
        settings = read_json((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        if isinstance(settings, dict):
            return settings
        got: object = f"{settings!r:.80}"
    except (OSError, ValueError) as problem:
        got = reason(problem)
    raise CheckpointError(
        f'"{reference}" is damaged: expected fields in JSON in {ADAPTER_CONFIG}, got {got}. Save the adapter again.'
    )


def stored_tensors(folder: Path, reference: str) -> dict[str, Stored]:
    """Data type and shape of every tensor in a folder's safetensors files.

    Raises: CheckpointError if they are damaged, or if there are only pickles or none.
    """
    files = weight_files(folder)
    if not files:
        pickles = [path.name for path in folder.iterdir() if path.name.endswith(hub.PICKLES)]
        got = f"pickled weights ({quoted(pickles)})" if pickles else "no weights"
        raise CheckpointError(
            f'"{reference}" cannot be opened: expected weights in safetensors, got {got}. '
            "Pickles can run code and are never opened; save the model again with save_pretrained."
        )
    tensors: dict[str, Stored] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (not a mapping)
                    tensor = file.get_slice(name)
                    tensors[name] = Stored(str(tensor.get_dtype()), tuple(tensor.get_shape()))
        except (SafetensorError, OSError) as problem:
            raise unreadable(reference, problem) from problem
    return tensors


def unreadable(reference: str, problem: Exception) -> CheckpointError:
    """The error about weights that are not whole."""
    return CheckpointError(
        f'"{reference}" is damaged: expected complete safetensors files, got "{reason(problem)}". '
        "Download or save the checkpoint again."
    )


def _local_header(folder: Path, reference: str, commit: str | None = None) -> Header:
    adapter = None
    if is_adapter({path.name for path in folder.iterdir()}):
        adapter = read_adapter_config(folder, reference)
    config = read_config(folder, reference) if adapter is None or (folder / "config.json").is_file() else {}
    tensors = stored_tensors(folder, reference)
    size = sum(path.stat().st_size for path in weight_files(folder))
    return Header(reference, config, tensors, _card(folder), folder, commit, adapter, size)


def _card(folder: Path) -> Mapping[str, object]:
    """The metadata at the top of a folder's README.md; empty where there is none that can be read."""
    path = folder / "README.md"
    try:
        found = re.match(r"---\s*\n(.*?)\n---", read_text(path), re.DOTALL)
        card = read_yaml(found[1]) if found else {}
    except (OSError, ValueError):
        return {}
    return card if isinstance(card, Mapping) else {}
