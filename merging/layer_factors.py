"""Kronecker factors of the Fisher of a model's layers: what `merging.gradients` sums, as means, and on disk."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from merging.errors import FisherError

DIGEST = "sha256"  # of the numbers, in a file's metadata
PARTS = ("inputs", "outputs", "weighted")


@dataclass(frozen=True, eq=False)
class LayerFactors:
    """F ≈ A ⊗ G of one layer W (o, d): `inputs` A = E[a aᵀ] over tokens, `outputs` G = E[Σ_tokens g gᵀ], in nats².

    `weighted` is E[Σ_tokens ‖g‖² a aᵀ]. A mean over tokens counts those alone through which gradients pass; a mean over examples
    all examples, with the expectation over labels. The parameter named `bias` is the last of the d inputs, where there is one.
    A weight `is_transposed` if it is stored as (d, o), as in GPT-2's Conv1D.
    """

    inputs: Float[Tensor, " d d"]
    outputs: Float[Tensor, " o o"]
    weighted: Float[Tensor, " d d"]
    bias: str | None = None
    is_transposed: bool = False

    def to(self, device: str | torch.device) -> "LayerFactors":
        """The same factors on another device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in PARTS})


class Factors(Mapping[str, LayerFactors]):
    """A model's factors by the names of its layers' weights; those of a file are read when they are asked for.

    `seconds` is what they took beside the diagonal Fisher, in the same pass.
    """

    def __init__(self, layers: Mapping[str, LayerFactors], examples: int, seconds: float = 0.0, size_bytes: int = 0):
        self._layers, self.examples, self.seconds = layers, examples, seconds
        self.size_bytes = size_bytes or sum(getattr(own, name).nbytes for own in layers.values() for name in PARTS)

    def __getitem__(self, name: str) -> LayerFactors:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def save(self, path: Path) -> None:
        """Writes a safetensors file, with the layers' biases and a digest of the numbers in its metadata."""
        tensors, layers = {}, {}
        for name, own in self.items():
            layers[name] = {"bias": own.bias, "is_transposed": own.is_transposed}
            tensors |= {f"{name}:{part}": getattr(own, part).detach().cpu().contiguous() for part in PARTS}
        about = json.dumps({"examples": self.examples, "seconds": self.seconds, "layers": layers})
        save_file(tensors, path, metadata={"factors": about, DIGEST: _digest(about, tensors)})

    @staticmethod
    def load(path: Path) -> "Factors":
        """Opens what `save` wrote. Raises: FisherError if it is not such a file, or if its numbers are others by now."""
        try:
            stored = _Stored(path)
            return Factors(stored, stored.examples, stored.seconds, Path(path).stat().st_size)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as problem:
            raise FisherError(
                f'"{Path(path).name}" cannot be read: expected Kronecker factors in safetensors, got {problem!s:.120}. '
                "Delete the file; they are estimated again."
            ) from problem


class _Stored(Mapping[str, LayerFactors]):
    """Factors in a file that stays open: one layer is in memory at a time."""

    def __init__(self, path: Path):
        self._file = safe_open(path, framework="pt").__enter__()
        metadata = self._file.metadata() or {}
        about = json.loads(metadata["factors"])
        self.examples, self.seconds = int(about["examples"]), float(about["seconds"])
        self._layers = {str(name): (own["bias"], bool(own["is_transposed"])) for name, own in about["layers"].items()}
        names = [f"{name}:{part}" for name in self._layers for part in PARTS]
        if metadata[DIGEST] != _digest(metadata["factors"], {name: None for name in names}, self._file.get_tensor):
            raise ValueError("other numbers than were written")

    def __getitem__(self, name: str) -> LayerFactors:
        bias, is_transposed = self._layers[name]
        parts = {part: self._file.get_tensor(f"{name}:{part}") for part in PARTS}
        return LayerFactors(**parts, bias=bias, is_transposed=is_transposed)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)


def _digest(about: str, tensors: Mapping[str, Tensor | None], read=None) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = read(name) if read else tensors[name]
        digest.update(f"{name} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
