"""Checkpoints: Hugging Face folders with a classifier's weights in safetensors."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from merging.errors import CheckpointError, StructureError, quoted
from merging.references import nearest_folder, short_name, zoo_entry

ARCHITECTURES = ("ForSequenceClassification", "ForImageClassification")
# The files of a tokenizer or an image processor.
PROCESSOR_FILES = ("*processor_config.json", "*token*.json", "tokenizer*", "vocab.*", "merges.txt", "*.model")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint whose configuration and tensor headers have been read, and whose weights have not.

    `reference` is how the recipe names it, `shapes` the shape of every stored tensor.
    """

    name: str
    reference: str
    folder: Path = field(repr=False)
    config: Mapping[str, object] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)

    @property
    def architecture(self) -> str:
        """The Transformers class, for example `ViTForImageClassification`."""
        return str(self.config["architectures"][0])

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the head's outputs, in their order."""
        names = {int(index): str(name) for index, name in (self.config.get("id2label") or {}).items()}
        count = len(names) or int(self.config.get("num_labels", 2))
        return tuple(names.get(index, f"LABEL_{index}") for index in range(count))

    @property
    def parameter_count(self) -> int:
        """How many numbers the checkpoint stores."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    @cached_property
    def hash(self) -> str:
        """SHA-256 over configuration, weights and tokenizer or image processor: the same content, the same hash."""
        digest = hashlib.sha256()
        readers = {path for pattern in PROCESSOR_FILES for path in self.folder.glob(pattern)}
        for path in [self.folder / "config.json", *weight_files(self.folder), *sorted(readers)]:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def parameters(self) -> dict[str, torch.Tensor]:
        """All stored tensors under their Hugging Face names, as stored. Raises: CheckpointError if damaged."""
        tensors: dict[str, torch.Tensor] = {}
        for path in weight_files(self.folder):
            try:
                tensors |= load_file(path)
            except (SafetensorError, OSError) as problem:
                raise _unreadable(self.reference, problem) from problem
        return tensors

    def model(self, device: str | torch.device = "cpu", *, as_base_of: str | None = None) -> nn.Module:
        """The model in float32 and evaluation mode.

        A base is opened as the class that was fine-tuned from it, `as_base_of`; its head is new and says nothing.

        Raises: CheckpointError if weights are missing, do not fit or are damaged.
        """
        import transformers

        architecture = getattr(transformers, as_base_of or self.architecture)
        settings = {"use_safetensors": True, "local_files_only": True, "dtype": torch.float32}
        # Tensors of another shape are reported below, by name.
        settings |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        try:
            model, report = architecture.from_pretrained(self.folder, **settings)
        except (SafetensorError, OSError, ValueError, RuntimeError) as problem:
            raise _unreadable(self.reference, problem) from problem
        unfit = [entry if isinstance(entry, str) else entry[0] for entry in report.get("mismatched_keys", ())]
        unfit = [
            name for name in [*report["missing_keys"], *unfit] if not as_base_of or name.startswith(body_prefix(model))
        ]
        if unfit:
            raise CheckpointError(
                f'"{self.reference}" is incomplete: expected weights for every parameter of {architecture.__name__}, '
                f"got none that fit for {quoted(unfit)}. Save the checkpoint again."
            )
        return model.eval().to(device)

    def processor(self) -> object:
        """The checkpoint's own tokenizer or image processor.

        Raises: CheckpointError if the folder has none.
        """
        from transformers import AutoImageProcessor, AutoTokenizer

        kind = AutoImageProcessor if self.architecture.endswith("ForImageClassification") else AutoTokenizer
        try:
            return kind.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError) as problem:
            wanted = "an image processor" if kind is AutoImageProcessor else "a tokenizer"
            raise CheckpointError(
                f'"{self.reference}" cannot read data: expected {wanted} in its folder, got {_reason(problem)}. '
                "Copy the files of the base's tokenizer or image processor into it."
            ) from problem


def open_checkpoint(reference: str, *, name: str | None = None, is_base: bool = False) -> Checkpoint:
    """Opens `zoo:POOL/NAME`, a folder, or a Hub id with an optional `@revision`; reads no weights yet.

    A base may be of any architecture; what is merged must be a classifier.

    Raises: CheckpointError if it is missing, damaged, pickled, or no classifier.
    """
    folder = resolve_folder(reference)
    config = _read_config(folder, reference, is_base=is_base)
    shapes: dict[str, tuple[int, ...]] = {}
    files = weight_files(folder)
    if not files:
        pickles = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
        got = f"pickled weights ({quoted(pickles)})" if pickles else "no weights"
        raise CheckpointError(
            f'"{reference}" cannot be opened: expected weights in safetensors, got {got}. '
            "Pickles can run code and are never opened; save the model again with save_pretrained."
        )
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for tensor in file.keys():  # noqa: SIM118 (not a mapping)
                    shapes[tensor] = tuple(file.get_slice(tensor).get_shape())
        except (SafetensorError, OSError) as problem:
            raise _unreadable(reference, problem) from problem
    return Checkpoint(name or short_name(reference), reference, folder, config, shapes)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder; of a sharded model only those that its index names.

    Raises: CheckpointError if a shard is missing or the index is damaged.
    """
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    try:
        files = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise _unreadable(f"{folder.name}/{index.name}", problem) from problem
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        raise CheckpointError(
            f'"{folder.name}" is incomplete: expected the shards of its index, got none of {quoted(missing)}. '
            "Download the checkpoint again."
        )
    return files


def resolve_folder(reference: str) -> Path:
    """The local folder of a checkpoint's reference; downloads a Hub checkpoint (safetensors and JSON only)."""
    if reference.startswith("zoo:"):
        pool, _, name = reference.removeprefix("zoo:").partition("/")
        return zoo_entry(pool, "checkpoints", name, CheckpointError)
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_absolute() or reference.count("/") != 1 or reference.startswith((".", "~")):
        raise CheckpointError(
            f'There is no checkpoint "{reference}": expected zoo:POOL/NAME, a folder, or a Hub id like "org/name", '
            f"got a path that is no folder. {nearest_folder(folder)}"
        )
    return _download(reference)


def body_prefix(model: nn.Module) -> str:
    """What the names of the body's parameters start with, for example `vit.`; all others are the head's."""
    if model.base_model is model:
        raise StructureError(
            f"{type(model).__name__} has no head: expected a body with a classification head, got a body alone. "
            "Use a fine-tuned checkpoint."
        )
    return f"{model.base_model_prefix}."


def _read_config(folder: Path, reference: str, *, is_base: bool) -> dict[str, object]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise CheckpointError(
            f'"{reference}" is no checkpoint: expected a file config.json, got {_reason(problem)}. '
            "Name a folder written by save_pretrained."
        ) from problem
    except ValueError as problem:
        raise CheckpointError(
            f'"{reference}" is damaged: expected JSON in config.json, got {_reason(problem)}. Download it again.'
        ) from problem
    import transformers

    listed = config.get("architectures") if isinstance(config, Mapping) else None
    architecture = str(listed[0]) if isinstance(listed, list) and listed else "none"
    if not is_base and not (architecture.endswith(ARCHITECTURES) and hasattr(transformers, architecture)):
        raise CheckpointError(
            f'"{reference}" cannot be merged: expected a classifier that Transformers knows (*{ARCHITECTURES[0]} or '
            f'*{ARCHITECTURES[1]}), got "{architecture}". Use a fine-tuned classification checkpoint.'
        )
    return config


def _download(reference: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = reference.partition("@")
    try:
        patterns = ["*.json", "*.safetensors", "*.txt", "*.model"]
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (OSError, ValueError) as problem:
        offline = "offline mode" if os.environ.get("HF_HUB_OFFLINE") else _reason(problem)
        raise CheckpointError(
            f'"{reference}" cannot be had: expected a folder, or an id on the Hugging Face Hub, got {offline}. '
            "Check the spelling and the connection, or download it and name its folder."
        ) from problem


def _unreadable(reference: str, problem: Exception) -> CheckpointError:
    return CheckpointError(
        f'"{reference}" is damaged: expected complete safetensors files, got "{_reason(problem)}". '
        "Download or save the checkpoint again."
    )


def _reason(problem: Exception) -> str:
    text = getattr(problem, "strerror", None) or str(problem).strip() or type(problem).__name__
    return text.splitlines()[0][:160]
