"""Checkpoints: Hugging Face folders with a classifier's weights in safetensors."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from merging.adapters import whole_folder
from merging.claims import check_repeats, check_size
from merging.errors import CheckpointError, StructureError, quoted
from merging.headers import (
    PROCESSOR_FILES,
    label_names,
    read_config,
    stored_tensors,
    unreadable,
    weight_files,
)
from merging.processors import has_processor, open_processor
from merging.references import short_name

ARCHITECTURES = ("ForSequenceClassification", "ForImageClassification")
# Classifiers by what a task asks: a vision tower with class names, a language model with label words.
TOWERS = ("CLIPVisionModel", "CLIPVisionModelWithProjection", "CLIPModel")
TEXT_TO_TEXT = ("T5ForConditionalGeneration",)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint whose configuration and tensor headers have been read, and whose weights have not.

    `reference` is how the recipe names it, `shapes` the shape of every stored tensor. One without a head has its
    task's `answers` for label names, and may borrow tokenizer, image processor and text tower from its `base`.
    """

    name: str
    reference: str
    folder: Path = field(repr=False)
    config: Mapping[str, object] = field(repr=False)
    shapes: Mapping[str, tuple[int, ...]] = field(repr=False)
    answers: tuple[str, ...] | None = field(default=None, repr=False)
    base: "Checkpoint | None" = field(default=None, repr=False)

    @property
    def architecture(self) -> str:
        """The Transformers class, for example `ViTForImageClassification`."""
        return str(self.config["architectures"][0])

    @property
    def reads_images(self) -> bool:
        """Whether its inputs are images; else they are texts."""
        return self.architecture.endswith("ForImageClassification") or self.architecture in TOWERS

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the head's outputs, in their order."""
        if self.answers is not None:
            return self.answers
        return label_names(self.config)

    @property
    def parameter_count(self) -> int:
        """How many numbers the checkpoint stores."""
        return sum(torch.Size(shape).numel() for shape in self.shapes.values())

    @cached_property
    def hash(self) -> str:
        """SHA-256 over configuration, weights and tokenizer or image processor: the same content, the same hash."""
        digest = hashlib.sha256(self.base.hash.encode() if self.base else b"")
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
                raise unreadable(self.reference, problem) from problem
        return tensors

    def model(self, device: str | torch.device = "cpu") -> nn.Module:
        """The model in float32 and evaluation mode.

        Raises: CheckpointError if weights are missing, do not fit or are damaged.
        """
        model, unfit = self._opened(self.architecture)
        self._require_whole(model, unfit)
        return model.eval().to(device)

    def parameters_as_base_of(self, architecture: str, device: str | torch.device = "cpu") -> dict[str, torch.Tensor]:
        """A base's parameters by the names of the class that was fine-tuned from it; a head that it lacks is left out.

        Raises: CheckpointError if weights of the body are missing, do not fit or are damaged.
        """
        model, unfit = self._opened(architecture)
        self._require_whole(model, [name for name in unfit if name.startswith(body_prefix(model))])
        return {name: own.detach().to(device) for name, own in model.named_parameters() if name not in unfit}

    def _opened(self, architecture: str) -> tuple[nn.Module, list[str]]:
        """The model, and which of its weights are new, for want of stored ones of their name and shape."""
        import transformers

        settings = {
            "use_safetensors": True,
            "local_files_only": True,
            "dtype": torch.float32,
            "trust_remote_code": False,
        }
        # Tensors of another shape are reported by name.
        settings |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
        check_repeats(self.config, len(self.shapes), self.reference)
        try:
            kind = getattr(transformers, architecture)
            with torch.device("meta"):
                asked = sum(own.numel() for own in kind(kind.config_class.from_pretrained(self.folder)).parameters())
            check_size(asked, self.parameter_count, self.reference)
            model, report = kind.from_pretrained(self.folder, **settings)
        except CheckpointError:
            raise
        # Transformers checks configurations in many ways, and its models trust the rest.
        except Exception as problem:
            raise unreadable(self.reference, problem) from problem
        unfit = [entry if isinstance(entry, str) else entry[0] for entry in report.get("mismatched_keys", ())]
        return model, [*report["missing_keys"], *unfit]

    def _require_whole(self, model: nn.Module, unfit: list[str]) -> None:
        if unfit:
            raise CheckpointError(
                f'"{self.reference}" is incomplete: expected weights for every parameter of {type(model).__name__}, '
                f"got none that fit for {quoted(unfit)}. Save the checkpoint again."
            )

    def processor(self) -> object:
        """The checkpoint's own tokenizer or image processor; its base's where it has none.

        Raises: CheckpointError if there is none.
        """
        return open_processor(self.processor_folder, images=self.reads_images, reference=self.reference)

    @property
    def processor_folder(self) -> Path:
        """Where its tokenizer or image processor lies: its own folder, or its base's where that has none."""
        borrows = self.base is not None and not has_processor(self.folder, images=self.reads_images)
        return self.base.folder if borrows else self.folder


def open_checkpoint(reference: str, *, name: str | None = None, is_base: bool = False) -> Checkpoint:
    """Opens `zoo:POOL/NAME`, a folder, or a Hub id with an optional `@revision`; reads no weights yet.

    A base may be of any architecture; what is merged must be a classifier, a CLIP vision tower, or a T5.

    Raises: CheckpointError if it is missing, damaged, pickled, or no classifier.
    """
    folder = whole_folder(reference)
    config = read_config(folder, reference)
    require_mergeable(config, reference, is_base=is_base)
    shapes = {tensor: stored.shape for tensor, stored in stored_tensors(folder, reference).items()}
    return Checkpoint(name or short_name(reference), reference, folder, config, shapes)


def body_prefix(model: nn.Module) -> str:
    """What the names of the body's parameters start with, for example `vit.`; all others are the head's."""
    if model.base_model is model:
        raise StructureError(
            f"{type(model).__name__} has no head: expected a body with a classification head, got a body alone. "
            "Use a fine-tuned checkpoint."
        )
    return f"{model.base_model_prefix}."


def require_mergeable(config: object, reference: str, *, is_base: bool = False) -> None:
    """Raises: CheckpointError unless a configuration is that of a model that can be merged; a base may be any."""
    import transformers

    try:
        label_names(config if isinstance(config, Mapping) else {})
    except (AttributeError, TypeError, ValueError) as problem:
        raise CheckpointError(
            f'"{reference}" is damaged: expected numbers with names under id2label in config.json, got '
            f'"{config.get("id2label")!r:.80}". Mend it.'
        ) from problem
    listed = config.get("architectures") if isinstance(config, Mapping) else None
    architecture = str(listed[0]) if isinstance(listed, list) and listed else "none"
    is_known = architecture.endswith(ARCHITECTURES) or architecture in TOWERS + TEXT_TO_TEXT
    # A class that looks for another one in the folder could be led to code there.
    is_known = is_known and not architecture.startswith("Auto")
    # By its name: to import the class while another thread imports one may fail.
    if not is_base and not (is_known and architecture in dir(transformers)):
        raise CheckpointError(
            f'"{reference}" cannot be merged: expected a classifier that Transformers knows (*{ARCHITECTURES[0]}, '
            f'*{ARCHITECTURES[1]}, CLIP\'s vision tower or T5), got "{architecture}". Use a fine-tuned classification checkpoint.'
        )
